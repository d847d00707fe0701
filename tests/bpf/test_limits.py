# SPDX-License-Identifier: Apache-2.0
"""Several limits, many limits, new rulesets under traffic, bans, and the events of drops."""

import os

import pytest

from support.bpf import XDP_DROP, XDP_PASS, Answer, Kernel, on_cpu
from support.policy import limit, publish
from support.reference.frames import ethernet, ipv4, udp
from valkyrie.control.abi import MAX_LIMITS, NO_SLOT, Reason
from valkyrie.control.limits import Ban, Desired, Exempt

START = 1_000_000_000_000
SECOND = 1_000_000_000
PASSED = Answer(XDP_PASS, Reason.CONFORMS, NO_SLOT)
BANNED = Desired.of(bans=[Ban(prefix="10.0.0.0/8")])


def packet(source: int = 1, dport: int = 53) -> bytes:
    payload = udp(1000, dport)
    return ethernet(0x0800, ipv4((0x0A000000 + source).to_bytes(4, "big"), b"\xc6\x33\x64\1", 17, payload))


def test_a_refusal_gives_back_what_the_limits_before_it_took(kernel: Kernel) -> None:
    published = publish(
        kernel, [limit("a-total", rate="1/h", burst="3"), limit("b-source", rate="1/h", burst="1", key="src")]
    )
    total, source = published.numbers["a-total"].slot, published.numbers["b-source"].slot
    answers = [kernel.run(packet(host), START) for host in (1, 1, 1, 2, 3, 4)]
    refused = Answer(XDP_DROP, Reason.LIMIT, source)
    last = Answer(XDP_DROP, Reason.LIMIT, total)
    assert answers == [PASSED, refused, refused, PASSED, PASSED, last]
    assert kernel.limit_counters(total)["passed"] == kernel.limit_counters(source)["passed"] == 3


@pytest.mark.parametrize("count", [1, 8, 9, 33, 64, 65, 200, MAX_LIMITS])
def test_every_one_of_many_matching_limits_is_asked(roomy: Kernel, count: int) -> None:
    published = publish(roomy, [limit(f"l{i:03}", rate="1/h", burst="2") for i in range(count)])
    assert [roomy.run(packet(), START) for _ in range(2)] == [PASSED] * 2
    slots = [published.numbers[f"l{i:03}"].slot for i in range(count)]
    assert all(roomy.limit_counters(slot)["passed"] == 2 for slot in slots)
    assert roomy.run(packet(), START) == Answer(XDP_DROP, Reason.LIMIT, slots[0])


@pytest.mark.parametrize("count", [2, 9, 65, MAX_LIMITS])
def test_the_last_of_many_limits_refuses_and_the_others_get_their_tokens_back(
    roomy: Kernel, count: int
) -> None:
    limits = [limit(f"l{i:03}", rate="1/h", burst="5" if i < count - 1 else "1") for i in range(count)]
    published = publish(roomy, limits)
    roomy.run(packet(), START)
    before = roomy.buckets()
    last = published.numbers[f"l{count - 1:03}"].slot
    assert roomy.run(packet(), START) == Answer(XDP_DROP, Reason.LIMIT, last)
    assert roomy.buckets() == before
    first = roomy.limit_counters(published.numbers["l000"].slot)
    assert (first["matched"], first["passed"], first["dropped"]) == (2, 1, 0)


def test_a_new_ruleset_forgets_no_bucket_and_no_count_of_a_limit_that_stays(kernel: Kernel) -> None:
    kept = limit("one", rate="1/h", burst="10", key="src")
    passed = 0
    for round_ in range(20):
        extra = [limit(f"x{round_}", rate="1/s", match=f"proto udp dport {1000 + round_}")]
        published = publish(kernel, [kept, *extra])
        passed += kernel.run(packet(), START).action == XDP_PASS
    assert passed == 10
    assert kernel.limit_counters(published.numbers["one"].slot)["matched"] == 20
    assert kernel.dp.serial == 20


def test_a_ban_lasts_as_long_as_it_says_and_counts_once(kernel: Kernel) -> None:
    published = publish(kernel, [limit(rate="1/s", burst="1", key="src", action="ban", ban_for="10s")])
    assert kernel.run(packet(), START) == PASSED
    assert kernel.run(packet(), START) == Answer(XDP_DROP, Reason.LIMIT, published.slot)
    assert kernel.run(packet(), START + 10 * SECOND - 1).reason == Reason.KERNEL_BAN
    assert kernel.run(packet(2), START).reason == Reason.CONFORMS
    assert kernel.run(packet(), START + 10 * SECOND).reason == Reason.CONFORMS
    assert kernel.table_counter("bans") == 1


def test_exemptions_and_bans_end_at_the_nanosecond(kernel: Kernel) -> None:
    prefix = "10.0.0.0/24"
    desired = Desired.of(
        exempts=[Exempt(prefix=prefix, until=1001.0)], bans=[Ban(prefix="10.0.0.0/8", until=1002.0)]
    )
    publish(kernel, desired=desired)
    times = (1001 * SECOND - 1, 1001 * SECOND, 1002 * SECOND - 1, 1002 * SECOND)
    assert [kernel.run(packet(), now).reason for now in times] == [
        Reason.EXEMPT,
        Reason.BAN,
        Reason.BAN,
        Reason.NO_LIMIT,
    ]


def test_metadata_without_the_secret_is_no_test_control(kernel: Kernel) -> None:
    publish(kernel, [limit(rate="1/h", burst="1")])
    kernel.dp.control["test_magic"] = 1
    first = [kernel.runner.run(packet(), START) for _ in range(2)]
    assert [action for action, _, _ in first] == [XDP_PASS, XDP_DROP]
    assert {(reason, slot) for _, reason, slot in first} == {(0, 0)}
    assert max(kernel.buckets().values()) > 0
    assert (START << 6) not in {tat - 3600 * SECOND * 64 for tat in kernel.buckets().values()}


def drops(kernel: Kernel, count: int, now: int) -> None:
    for _ in range(count):
        assert kernel.run(packet(), now).action == XDP_DROP


def reported(kernel: Kernel) -> int:
    return kernel.table_counter("events_sent") + kernel.table_counter("events_lost")


@pytest.mark.parametrize(("sample", "expected"), [(1, 100), (0, 0)])
def test_every_drop_is_reported_or_none(kernel: Kernel, sample: int, expected: int) -> None:
    publish(kernel, desired=BANNED, event_sample=sample, event_rate=1000)
    drops(kernel, 100, START)
    assert reported(kernel) == expected


@pytest.mark.parametrize("sample", [2, 10])
def test_one_drop_in_so_many_is_reported_whoever_sends_in_turn(kernel: Kernel, sample: int) -> None:
    publish(kernel, desired=BANNED, event_sample=sample, event_rate=1_000_000)
    turns = [0] * sample
    with on_cpu(min(os.sched_getaffinity(0))):
        for turn in range(500 * sample):
            before = reported(kernel)
            kernel.run(packet(turn % sample), START)
            turns[turn % sample] += reported(kernel) - before
    # Six standard deviations: 13 at most of the number in all, the root of what is expected of a sender.
    assert abs(sum(turns) - 500) < 6 * 13
    assert all(abs(count - 500 / sample) < 6 * (500 / sample) ** 0.5 for count in turns)


def test_a_lower_sample_does_not_wait_for_the_end_of_a_higher_one(kernel: Kernel) -> None:
    publish(kernel, desired=BANNED, event_sample=1_000_000, event_rate=1000)
    drops(kernel, 20, START)
    publish(kernel, desired=BANNED, event_sample=2, event_rate=1000)
    before = reported(kernel)
    drops(kernel, 20 * kernel.dp.sizes.cpus, START)
    assert reported(kernel) > before


def test_no_more_events_a_second_than_the_rate_says_and_the_rest_are_counted(kernel: Kernel) -> None:
    publish(kernel, desired=BANNED, event_sample=1, event_rate=7)
    drops(kernel, 20, START)
    drops(kernel, 20, START + SECOND - 1)
    said = reported(kernel)
    assert (said, kernel.table_counter("events_limited")) == (7, 33)
    drops(kernel, 20, START + SECOND)
    assert reported(kernel) == 14


def test_events_that_find_the_ring_full_are_counted_as_lost(kernel: Kernel) -> None:
    publish(kernel, desired=BANNED, event_sample=1, event_rate=1_000_000)
    drops(kernel, 20_000, START)
    sent, lost = kernel.table_counter("events_sent"), kernel.table_counter("events_lost")
    assert sent + lost == 20_000
    assert lost > 0
