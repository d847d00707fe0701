# SPDX-License-Identifier: Apache-2.0
"""Ordinary users' packets beside a flood: every n-th is a user's."""

from random import Random

from profiles import legit
from profiles.target import Builder, Made, Target


def beside(flood: Builder, share: int) -> Builder:
    """A builder of which one packet in `share` is a user's, the others the flood's."""

    def make(target: Target, chance: Random, seq: int, turn: int) -> Made:
        users = turn // share
        if turn % share == 0:
            return legit.make(target, chance, seq, users)
        return flood(target, chance, seq, turn - users - 1)

    return make
