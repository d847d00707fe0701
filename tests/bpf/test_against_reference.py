# SPDX-License-Identifier: Apache-2.0
"""Random policies and random traffic: the loaded program and the reference agree on everything.

That is each verdict, reason and refusing limit, then every counter, every bucket and every lease.
"""

from dataclasses import asdict
from random import Random

from hypothesis import Phase, given, note, settings
from hypothesis import strategies as st

from support.bpf import XDP_DROP, XDP_PASS, Kernel, on_cpu
from support.policy import enforce
from support.reference.frames import mutate, random_frame
from support.reference.police import Police
from support.reference.scenario import Scenario, random_scenario
from valkyrie.control.abi import LEASES, MAX_LIMITS, TEST_EXPLAIN, Action, Reason

START = 1000 * 1_000_000_000
SEEDS = st.integers(0, 2**32 - 1)
DIFFERENT = 16
STEPS = st.sampled_from((0, 0, 0, 1, 1_000_000, 90_000_000, 1_000_000_000, 70_000_000_000, -500))


def frames(policy: int, seeds: list[int]) -> list[bytes]:
    """Out of some different ones, so that buckets run dry; one in eight is mutated."""
    made = []
    for seed in seeds:
        rng = Random(f"{policy} {seed % DIFFERENT}")
        frame = random_frame(rng)
        made.append(mutate(rng, frame) if seed % 8 == 0 else frame)
    return made


def check_counters(kernel: Kernel, police: Police) -> None:
    assert kernel.reasons() == {reason: n for reason, n in police.reasons.items() if n}
    for limit in police.rules.limits:
        counted = kernel.limit_counters(limit.slot)
        leased = counted.pop("leased")
        expected = police.counters.get(limit.slot)
        assert counted == (asdict(expected) if expected else dict.fromkeys(counted, 0)), limit.name
        assert leased == 0 or limit.plan.batch or any(override.plan.batch for override in limit.overrides)
    for name in ("inserted", "evicted_live"):
        assert kernel.table_counter(name) == getattr(police.table, name), name
    assert kernel.table_counter("bans") == police.bans_made
    assert (
        sum(kernel.limit_counters(limit.slot)["leased"] for limit in police.rules.limits)
        == police.table.leased
    )


def check_buckets(kernel: Kernel, police: Police) -> None:
    ways = [way for ways in police.table.ways.values() for way in ways if way.fingerprint]
    assert kernel.buckets() == {way.fingerprint: way.tat for way in ways}
    leases = kernel.dp.leases[:LEASES]
    held = {int(place): lease for place, lease in police.table.leases.items() if lease.fingerprint}
    assert set(leases["fingerprint"].nonzero()[0].tolist()) == set(held)
    for place, lease in held.items():
        row = leases[place]
        assert (int(row["fingerprint"]), int(row["left"]), int(row["valid_until"])) == (
            lease.fingerprint,
            lease.left,
            lease.valid_until,
        )


def compare(kernel: Kernel, scenario: Scenario, policy: int, traffic: list[tuple[int, int]]) -> None:
    """Both face the same frames; `traffic` is of (seed of a frame, ns since the one before)."""
    note(repr(scenario))
    kernel.reset()
    police = enforce(kernel, scenario)
    now = START
    with on_cpu(0):
        for frame, (_, step) in zip(frames(policy, [seed for seed, _ in traffic]), traffic, strict=True):
            now += step
            wanted = police.police(frame, now, scenario.interface)
            answer = kernel.run(frame, now)
            got = (answer.action, answer.reason, answer.slot)
            action = XDP_PASS if wanted.passed else XDP_DROP
            assert got == (action, wanted.reason, wanted.slot), f"at {now}: {frame.hex()}"
    check_counters(kernel, police)
    check_buckets(kernel, police)


TRAFFIC = st.lists(st.tuples(SEEDS, STEPS), min_size=1, max_size=80)


@settings(max_examples=250)
@given(SEEDS, st.integers(0, 8), TRAFFIC)
def test_the_program_and_the_reference_agree(
    tiny_table: Kernel, policy: int, limits: int, traffic: list[tuple[int, int]]
) -> None:
    compare(tiny_table, random_scenario(Random(policy), limits), policy, traffic)


@settings(max_examples=15, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(SEEDS, st.lists(st.tuples(SEEDS, STEPS), min_size=5, max_size=12))
def test_they_agree_on_policies_of_many_limits(
    small_table: Kernel, policy: int, traffic: list[tuple[int, int]]
) -> None:
    compare(small_table, random_scenario(Random(policy), MAX_LIMITS), policy, traffic)


@settings(max_examples=100)
@given(SEEDS, st.integers(1, 8), st.lists(SEEDS, min_size=1, max_size=40), SEEDS)
def test_an_explanation_says_what_would_happen_and_changes_nothing(
    tiny_table: Kernel, policy: int, limits: int, traffic: list[int], asked: int
) -> None:
    kernel = tiny_table
    kernel.reset()
    scenario = random_scenario(Random(policy), limits)
    note(repr(scenario))
    police = enforce(kernel, scenario)
    with on_cpu(0):
        for frame in frames(policy, traffic):
            police.police(frame, START, scenario.interface)
            kernel.run(frame, START)
        kernel.dp.explanations[:] = 0
        frame = frames(policy, [asked | 1])[0]
        answer = kernel.run(frame, START, flags=TEST_EXPLAIN)
    said = kernel.dp.explanations[: len(police.rules.limits)]
    expected = police.explain(frame, START, scenario.interface)
    assert [position for position, row in enumerate(said) if row["matched"]] == [e.position for e in expected]
    for entry in expected:
        row = said[entry.position]
        assert (int(row["cost"]), int(row["level"]), int(row["tau"])) == (entry.cost, entry.level, entry.tau)
        assert int(row["fingerprint"]) == entry.fingerprint
        assert bool(row["conforms"]) is entry.conforms
    refused = [police.rules.limits[e.position] for e in expected if not e.conforms]
    refusing = next((limit for limit in refused if limit.action != Action.SHADOW), None)
    if refusing is not None:
        assert (answer.action, answer.reason, answer.slot) == (XDP_DROP, Reason.LIMIT, refusing.slot)
    elif expected:
        assert (answer.action, answer.reason) == (XDP_PASS, Reason.CONFORMS)
    check_counters(kernel, police)
    check_buckets(kernel, police)
