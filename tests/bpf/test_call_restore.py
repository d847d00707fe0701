# SPDX-License-Identifier: Apache-2.0
"""Restoring: a bucket is brought to at least a level, never nearer to full, and packets find it."""

import time

import numpy as np
import pytest

from support.bpf import XDP_DROP, XDP_PASS
from support.calls import Calls
from support.policy import limit
from support.reference.frames import ethernet, ipv4, ipv6, udp
from valkyrie.control import abi
from valkyrie.control.dataplane.keyname import BAN_KEY, Record, opaque, record_of
from valkyrie.control.errors import NotFound
from valkyrie.control.key import ID

SECOND = 1_000_000_000
HOUR = 3600 * SECOND * 64
"""What a token of 1/h costs."""
V4 = (bytes([10, 0, 0, 1]), bytes([198, 51, 100, 1]))
V6 = (bytes.fromhex("20010db8000000010000000000000042"), bytes.fromhex("20010db8000000020000000000000007"))


def frame(ends: tuple[bytes, bytes]) -> bytes:
    if len(ends[0]) == 4:
        return ethernet(0x0800, ipv4(*ends, 17, udp(1, 2)))
    return ethernet(0x86DD, ipv6(*ends, 17, udp(1, 2)))


def only_record(calls: Calls) -> Record:
    """Of the one bucket in the table, as sync reads it."""
    dp = calls.kernel.dp
    sets, ways = np.nonzero(dp.buckets["fingerprint"])
    assert len(sets) == 1
    name = dp.bucket_keys["key"][sets[0], ways[0]]
    pair6 = bool(int(name["uid"]) & abi.UID_IPV6_PAIR)
    return Record(int(name["dport"]), name["addr"].tobytes(), pair6)


@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize(
    "key",
    [
        "global",
        "src",
        "src/24+src6/56",
        "dst",
        "dst+dport",
        "src+dst/24+dst6/64",
        "src+sport",
        "sport",
        "src6/128+dst",
        "flow",
    ],
)
def test_a_bucket_of_every_kind_comes_back_where_packets_find_it(
    calls: Calls, key: str, ends: tuple[bytes, bytes]
) -> None:
    now = time.monotonic_ns()
    published = calls.publish([limit(rate="1/h", burst="2", key=key)])
    assert calls.kernel.run(frame(ends), now).action == XDP_PASS
    record, spec = only_record(calls), calls.book.limits["one"].key
    fingerprints = set(calls.kernel.buckets())
    calls.kernel.reset()
    calls.publish([limit(rate="1/h", burst="2", key=key)])
    assert calls.caller.restore(published.uid, spec, [(record, 2 * HOUR)]) == 1
    assert set(calls.kernel.buckets()) == fingerprints
    assert only_record(calls) == record
    assert calls.kernel.run(frame(ends), now).action == XDP_DROP


def test_a_ban_comes_back(calls: Calls) -> None:
    calls.publish([limit(rate="1/h", burst="1", key="src", action="ban", ban_for="10m")])
    assert calls.kernel.run(frame(V4), 0).action == XDP_PASS
    calls.caller.restore(abi.UID_BAN, BAN_KEY, [(record_of("10.0.0.1", BAN_KEY), 600 * SECOND * 64)])
    assert calls.kernel.run(frame(V4), time.monotonic_ns()).reason == abi.Reason.KERNEL_BAN


def test_a_callers_own_bucket_comes_back(calls: Calls) -> None:
    calls.publish()
    assert calls.caller.restore(abi.UID_CALL, ID, [(opaque("login\0eve"), 5 * HOUR)]) == 1
    assert only_record(calls) == opaque("login\0eve")


def test_restoring_raises_a_level_and_never_lowers_it(calls: Calls) -> None:
    published = calls.publish([limit(rate="1/h", burst="10", key="id")])
    levels = []
    for given in (3 * HOUR, HOUR, 5 * HOUR, 0, (1 << 63)):
        calls.caller.restore(published.uid, ID, [(opaque("u"), given)])
        (tat,) = calls.kernel.buckets().values()
        levels.append(round((tat - (time.monotonic_ns() << 6)) / HOUR))
    assert levels == [3, 3, 5, 5, 5]
    assert calls.kernel.limit_counters(published.slot)["matched"] == 0


def test_many_are_restored_at_once(calls: Calls) -> None:
    published = calls.publish([limit(rate="1/h", burst="10", key="id")])
    records = [opaque(f"user {i}") for i in range(10_000)]
    assert calls.caller.restore(published.uid, ID, ((one, HOUR) for one in records)) == 10_000
    assert len(calls.kernel.buckets()) == 10_000


def test_a_limit_that_is_not_in_force_is_not_restored(calls: Calls) -> None:
    calls.publish()
    with pytest.raises(NotFound, match="uid 77"):
        calls.caller.restore(77, ID, [(opaque("u"), HOUR)])
