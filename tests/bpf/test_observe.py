# SPDX-License-Identifier: Apache-2.0
"""Observations in the kernel: of chosen keys every packet is told, and enforcing is as without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from support.bpf import Kernel
from support.policy import NIC_SLOTS, limit
from support.reference.frames import ethernet, ipv4, udp
from valkyrie.control import abi
from valkyrie.control.dataplane import layout
from valkyrie.control.dataplane.ring import Ring
from valkyrie.control.dataplane.watches import Watches
from valkyrie.control.limits import Desired, Limit
from valkyrie.control.ruleset.compile import RulesetSettings, SlotUid, compile_ruleset

SECOND = 1_000_000_000
START = 1000 * SECOND


def packet(host: int, dport: int = 53) -> bytes:
    source = bytes((10, 0, *divmod(host, 256)))
    return ethernet(0x0800, ipv4(source, b"\xc0\0\2\1", 17, udp(4000, dport, bytes(18))))


def put(kernel: Kernel, limits: list[Limit], observers: dict[int, Limit]) -> None:
    kernel.dp.publish(
        compile_ruleset(
            Desired.of(limits),
            slots={one.name: SlotUid(place, 100 + place) for place, one in enumerate(limits)},
            nic_slots=NIC_SLOTS,
            cpus=kernel.dp.sizes.cpus,
            settings=RulesetSettings(event_sample=0, max_nodes=kernel.dp.sizes.nodes),
            serial=kernel.dp.serial + 1,
            mono_now_ns=0,
            wall_now_ns=0,
            observers=observers,
        )
    )


@pytest.fixture
def watches(kernel: Kernel) -> Iterator[Watches]:
    found = Watches(kernel.dp.control, kernel.dp.watch, kernel.dp.watch_stats)
    found.clear()
    yield found
    found.clear()


@pytest.fixture
def ring(kernel: Kernel) -> Iterator[Ring]:
    with Ring(kernel.dp.pin_dir / layout.OBSERVED, abi.OBSERVED) as found:
        while len(found.batch()):
            pass
        yield found


def arm(watches: Watches, place: int = 0, mask: int = 0, thin: int = 0) -> None:
    row = np.zeros((), abi.OBSERVATION)
    row["id"], row["until"], row["mask"], row["thin"] = 70 + place, START + 100 * SECOND, mask, thin
    watches.observe(place, row)


@pytest.mark.parametrize("mask", [0, 3])
def test_of_chosen_keys_every_packet_is_told_dropped_or_not(
    kernel: Kernel, watches: Watches, ring: Ring, mask: int
) -> None:
    put(kernel, [limit("a", rate="1/h", burst="2", key="src")], {0: limit("o", rate="1/s", key="src")})
    arm(watches, mask=mask)
    random = np.random.default_rng(3)
    hosts = random.integers(0, 200, 3000).tolist()
    for nth, host in enumerate(hosts):
        kernel.run(packet(host), START + nth)
    found = ring.batch()
    streams: dict[int, list[int]] = {}
    for one in found:
        streams.setdefault(int(one["fingerprint"]), []).append(int(one["time"]) - START)
    sent: dict[int, list[int]] = {}
    for nth, host in enumerate(hosts):
        sent.setdefault(host, []).append(nth)
    whole = {tuple(times) for times in sent.values()}
    assert {tuple(times) for times in streams.values()} <= whole
    assert not [one for one in streams if one >> 16 & mask]
    assert set(found["tokens"].tolist()) == {1}
    if mask:
        assert len(whole) / 8 < len(streams) < len(whole) / 2
    else:
        assert len(streams) == len(whole)
    figures = watches.observation_figures(0)
    assert (figures["seen"], figures["sent"], figures["lost"]) == (3000, len(found), 0)


@pytest.mark.parametrize("count", [0, 1, 9, 70, abi.MAX_LIMITS - abi.OBSERVATIONS])
def test_enforcing_is_as_without(kernel: Kernel, watches: Watches, count: int) -> None:
    limits = [limit(f"l{i:03}", rate="1/h", burst="3", key="src") for i in range(count)]
    traffic = [(host % 7, START + host) for host in range(60)]
    put(kernel, limits, {})
    plain = [kernel.run(packet(host), now) for host, now in traffic]
    before, buckets = kernel.dp.limit_stats.copy(), kernel.buckets()
    kernel.reset()
    seeing = {place: limit("o", rate="1/s", key="src+dport") for place in range(abi.OBSERVATIONS)}
    put(kernel, limits, seeing)
    for place in range(abi.OBSERVATIONS):
        arm(watches, place)
    assert [kernel.run(packet(host), now) for host, now in traffic] == plain
    assert Counter(kernel.buckets().values()) == Counter(buckets.values())
    names = ("matched", "passed", "dropped")
    assert all((kernel.dp.limit_stats[name].sum(0) == before[name].sum(0)).all() for name in names)
    for place in range(abi.OBSERVATIONS):
        assert watches.observation_figures(place)["seen"] == len(traffic)


def test_only_what_matches_is_told_and_nothing_once_it_has_ended(
    kernel: Kernel, watches: Watches, ring: Ring
) -> None:
    put(kernel, [], {2: limit("o", match="dport 53", rate="1/s", key="src")})
    arm(watches, 2)
    for dport in (53, 54, 53):
        kernel.run(packet(1, dport), START)
    kernel.run(packet(1), START + 100 * SECOND)
    watches.end_observation(2)
    kernel.run(packet(1), START)
    assert ring.batch()["id"].tolist() == [72, 72]


def test_where_packets_are_chosen_about_one_in_so_many_is_told(
    kernel: Kernel, watches: Watches, ring: Ring
) -> None:
    put(kernel, [], {0: limit("o", rate="1/s", key="global")})
    arm(watches, thin=3)
    for _ in range(4000):
        kernel.run(packet(1), START)
    found = ring.batch()
    assert 800 < len(found) < 1200
    assert set(found["thin"].tolist()) == {3}


def test_what_finds_the_ring_full_is_counted(kernel: Kernel, watches: Watches, ring: Ring) -> None:
    put(kernel, [], {0: limit("o", rate="1/s", key="src")})
    arm(watches)
    for host in range(30_000):
        kernel.run(packet(host), START)
    figures = watches.observation_figures(0)
    assert figures["lost"] > 0
    assert figures["sent"] + figures["lost"] == figures["seen"] == 30_000


def test_where_limits_leave_no_room_observers_see_nothing(kernel: Kernel, watches: Watches) -> None:
    limits = [limit(f"l{i:03}", rate="1/h", burst="3", key="src") for i in range(abi.MAX_LIMITS)]
    put(kernel, limits, {0: limit("o", rate="1/s", key="src")})
    arm(watches)
    kernel.run(packet(1), START)
    assert watches.observation_figures(0)["seen"] == 0
