# SPDX-License-Identifier: Apache-2.0
"""Hostile bytes: a defined verdict each, and the one that the reference parser gives."""

from collections import Counter
from random import Random

import pytest

from support.bpf import XDP_DROP, XDP_PASS, Kernel
from support.reference.frames import mutate, random_frame
from support.reference.parser import parse
from valkyrie.control.abi import Reason

TEMPLATES = 5000


def expected(frame: bytes) -> Reason:
    """The reason under an empty ruleset."""
    packet = parse(frame)
    if packet.reason is not None:
        return packet.reason
    return Reason.CONTROL if packet.control else Reason.NO_LIMIT


def test_malformed_truncated_and_random_packets_get_the_verdict_of_the_reference(
    kernel: Kernel, pytestconfig: pytest.Config
) -> None:
    count, seed = pytestconfig.getoption("--fuzz-count"), pytestconfig.getoption("--fuzz-seed")
    rng = Random(seed)
    templates = [random_frame(rng) for _ in range(TEMPLATES)]
    kernel.dp.rulesets["malformed_drop"] = 1
    seen: Counter[Reason] = Counter()
    for _ in range(count):
        frame = mutate(rng, rng.choice(templates))
        action, reason, _ = kernel.runner.run(frame, 1)
        wanted = expected(frame)
        drop = wanted >= Reason.BAD_ETHERNET
        assert (action, reason) == (XDP_DROP if drop else XDP_PASS, wanted), (
            f"{wanted.name} was wanted, action {action}, reason {Reason(reason).name}: {frame.hex()}"
        )
        seen[wanted] += 1
    assert kernel.reasons() == seen
    never = {Reason.BAD_ETHERNET} | {
        reason for reason in Reason if Reason.CONFORMS <= reason < Reason.CONTROL
    }
    within = set(Reason) - never - set(range(Reason.LIMIT, Reason.BAD_ETHERNET))
    assert within <= seen.keys(), "the fuzzer reached too little"


def test_malformed_packets_pass_where_the_policy_says_so(kernel: Kernel) -> None:
    rng = Random(7)
    kernel.dp.rulesets["malformed_drop"] = 0
    for _ in range(2000):
        frame = mutate(rng, random_frame(rng))
        assert kernel.run(frame, 1).action == XDP_PASS, frame.hex()
