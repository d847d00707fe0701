# SPDX-License-Identifier: Apache-2.0
"""Captures in the kernel: the frames that a filter wants, byte for byte, sampled and bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from support.bpf import Kernel
from support.policy import limit, publish
from support.reference.frames import ethernet, ipv4, ipv6, udp
from valkyrie.control import abi
from valkyrie.control.capture.filter import RATE, Filter, row
from valkyrie.control.dataplane import layout
from valkyrie.control.dataplane.ring import Ring
from valkyrie.control.dataplane.watches import Watches
from valkyrie.control.enums import Reason
from valkyrie.control.limits import Ban, Desired

SECOND = 1_000_000_000
START = 1000 * SECOND
IDENTITY = 7


def packet(host: int = 1, payload: bytes = bytes(18), dport: int = 53) -> bytes:
    source = bytes((10, 0, 0, host))
    return ethernet(0x0800, ipv4(source, b"\xc0\0\2\1", 17, udp(4000, dport, payload)))


@pytest.fixture
def watches(kernel: Kernel) -> Iterator[Watches]:
    found = Watches(kernel.dp.control, kernel.dp.watch, kernel.dp.watch_stats)
    found.clear()
    yield found
    found.clear()


@pytest.fixture
def ring(kernel: Kernel) -> Iterator[Ring]:
    with Ring(kernel.dp.pin_dir / layout.CAPTURED, abi.CAPTURED) as found:
        while len(found.batch()):
            pass
        yield found


def arm(watches: Watches, slot: int | None = None, place: int = 0, **wanted: Any) -> None:
    watches.capture(place, row(Filter(**wanted), slot, IDENTITY + place, START + 100 * SECOND))


def frames(records: Iterable[Any]) -> list[bytes]:
    return [one["data"].tobytes()[: int(one["bytes"])] for one in records]


@pytest.mark.parametrize("length", [46, 47, 53, 54, 200, 255, 256, 257, 1000])
@pytest.mark.parametrize("snaplen", [14, 60, 61, 255, 256])
def test_a_dropped_frame_is_copied_byte_for_byte_up_to_the_snaplen(
    kernel: Kernel, watches: Watches, ring: Ring, length: int, snaplen: int
) -> None:
    publish(kernel, desired=Desired.of(bans=[Ban(prefix="10.0.0.0/8")]))
    arm(watches, snaplen=snaplen)
    sent = packet(payload=np.random.default_rng(length).bytes(length))
    kernel.run(sent, START + 5)
    (one,) = ring.batch()
    assert frames([one]) == [sent[:snaplen]]
    told = {name: int(one[name]) for name in ("time", "id", "length", "slot", "reason", "verdict")}
    assert told == {
        "time": START + 5, "id": IDENTITY, "length": len(sent), "slot": abi.NO_SLOT,
        "reason": Reason.BAN, "verdict": abi.CAPTURE_DROPPED,
    }  # fmt: skip


def test_a_limits_filter_takes_its_drops_or_what_it_passed(
    kernel: Kernel, watches: Watches, ring: Ring
) -> None:
    made = publish(
        kernel,
        [
            limit("a", match="dport 53", rate="1/h", burst="2", key="src"),
            limit("b", match="dport 54", rate="1/h", burst="2", key="src"),
        ],
    )
    slot = made.numbers["a"].slot
    arm(watches, slot, place=0)
    arm(watches, slot, place=3, passed=True)
    for _ in range(3):
        for dport in (53, 54, 55):
            kernel.run(packet(dport=dport), START)
    found = ring.batch()
    assert sorted(zip(found["id"].tolist(), found["verdict"].tolist(), strict=True)) == [
        (IDENTITY, abi.CAPTURE_DROPPED),
        (IDENTITY + 3, abi.CAPTURE_PASSED),
        (IDENTITY + 3, abi.CAPTURE_PASSED),
    ]
    assert set(frames(found)) == {packet(dport=53)}


def test_what_a_shadow_would_drop_is_told_with_its_limit(
    kernel: Kernel, watches: Watches, ring: Ring
) -> None:
    made = publish(
        kernel, [limit("s", rate="1/h", burst="1", key="src", action="shadow"), limit("z", rate="1/s")]
    )
    arm(watches, made.numbers["s"].slot)
    kernel.run(packet(), START)
    assert len(ring.batch()) == 0
    kernel.run(packet(), START + SECOND)
    (one,) = ring.batch()
    assert int(one["verdict"]) == abi.CAPTURE_PASSED | abi.CAPTURE_SHADOWED
    assert (int(one["slot"]), int(one["reason"])) == (made.numbers["s"].slot, Reason.CONFORMS)


def test_reasons_and_sources_are_told_apart(kernel: Kernel, watches: Watches, ring: Ring) -> None:
    publish(kernel, desired=Desired.of(bans=[Ban(prefix="10.0.0.0/8"), Ban(prefix="2001:db8::/32")]))
    arm(watches, place=0, src="10.0.0.2/31")
    arm(watches, place=1, src="2001:db8::/33", reason="ban")
    arm(watches, place=2, reason="limit")
    for host in range(6):
        kernel.run(packet(host), START)
    for high in (b"\x20\x01\x0d\xb8\0", b"\x20\x01\x0d\xb8\x80"):
        kernel.run(ethernet(0x86DD, ipv6(high + bytes(11), bytes(15) + b"\2", 17, udp(1, 2, b""))), START)
    found = ring.batch()
    assert [(int(one["id"]) - IDENTITY, frames([one])[0][26 + 3]) for one in found[:2]] == [(0, 2), (0, 3)]
    assert (found["id"] - IDENTITY).tolist() == [0, 0, 1]


def test_one_in_so_many_is_copied_and_no_more_than_the_rate(
    kernel: Kernel, watches: Watches, ring: Ring
) -> None:
    publish(kernel, desired=Desired.of(bans=[Ban(prefix="10.0.0.0/8")]), event_sample=0)
    arm(watches, sample=10)
    for _ in range(1000):
        kernel.run(packet(), START)
    assert abs(len(ring.batch()) - 100) < 6 * 6  # standard deviations
    watches.end_capture(0)
    few = row(Filter(), None, IDENTITY, START + SECOND)
    few["rate"] = 7
    watches.capture(0, few)
    for _ in range(30):
        kernel.run(packet(), START)
    sent = watches.capture_figures(0)["sent"]
    assert watches.capture_figures(0) == {"seen": 30, "sent": sent, "lost": 0, "limited": 30 - sent}
    assert len(ring.batch()) == sent <= 7 * kernel.dp.sizes.cpus
    assert RATE > 7


def test_frames_that_find_the_ring_full_are_counted(kernel: Kernel, watches: Watches, ring: Ring) -> None:
    publish(kernel, desired=Desired.of(bans=[Ban(prefix="10.0.0.0/8")]), event_sample=0)
    most = row(Filter(), None, IDENTITY, START + SECOND)
    most["rate"] = 1_000_000
    watches.capture(0, most)
    for _ in range(5000):
        kernel.run(packet(), START)
    figures = watches.capture_figures(0)
    assert figures["lost"] > 0
    assert figures["sent"] + figures["lost"] == figures["seen"] == 5000
    assert sum(len(ring.batch(100_000)) for _ in range(2)) == figures["sent"]


def test_a_capture_ends_by_itself_and_when_let_go(kernel: Kernel, watches: Watches, ring: Ring) -> None:
    publish(kernel, desired=Desired.of(bans=[Ban(prefix="10.0.0.0/8")]))
    arm(watches)
    kernel.run(packet(), START + 100 * SECOND - 1)
    kernel.run(packet(), START + 100 * SECOND)
    assert len(ring.batch()) == 1
    watches.end_capture(0)
    assert int(kernel.dp.control["capturing"][0]) == 0
    kernel.run(packet(), START)
    assert len(ring.batch()) == 0


def test_verdicts_and_counts_are_the_same_while_captured(kernel: Kernel, watches: Watches) -> None:
    rules = [limit(f"l{i:03}", rate="1/h", burst="3", key="src") for i in range(64)]
    publish(kernel, rules)
    without = [kernel.run(packet(host % 5), START) for host in range(40)]
    plain = kernel.reasons()
    kernel.reset()
    publish(kernel, rules)
    for place in range(abi.CAPTURES):
        arm(watches, place=place, passed=bool(place % 2))
    assert [kernel.run(packet(host % 5), START) for host in range(40)] == without
    assert kernel.reasons() == plain
