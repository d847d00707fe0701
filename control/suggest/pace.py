# SPDX-License-Identifier: Apache-2.0
"""How much of what matches is reported to user space, so that it can keep up. Pure."""

from __future__ import annotations

from dataclasses import dataclass

TARGET = 20_000  # records a second
FEW_KEYS = 64  # with fewer keys, packets are chosen instead
MOST_BITS = 40


@dataclass(frozen=True)
class Width:
    """Keys are reported whose fingerprints have none of the bits of `mask` (above the lowest 16), and of them
    one packet in `thin` + 1.
    """

    mask: int = 0
    thin: int = 0

    @property
    def one_key_in(self) -> int:
        return self.mask + 1

    @property
    def one_packet_in(self) -> int:
        return self.thin + 1


def narrower(now: Width, rate: float, keys: int) -> Width:
    """What to report when `rate` records a second of so many keys came: no more than TARGET a second.

    Never wider again: a key whose packets were not all reported is of no use.
    """
    mask, thin = now.mask, now.thin
    while rate > TARGET and keys >= 2 * FEW_KEYS and mask.bit_length() < MOST_BITS:
        mask, rate, keys = mask << 1 | 1, rate / 2, keys // 2
    while rate > TARGET and thin.bit_length() < 31:
        thin, rate = thin << 1 | 1, rate / 2
    return Width(mask, thin)
