# SPDX-License-Identifier: Apache-2.0
"""The bucket table when it is full: who goes, who stays, and what nobody gains."""

from ipaddress import ip_address

import numpy as np
import pytest

from support.bpf import SECRET, XDP_PASS, Kernel
from support.policy import limit, publish
from support.reference.frames import ethernet, ipv4, ipv6, tcp, udp
from support.reference.key import Key, Lengths
from support.reference.parser import parse
from valkyrie.control.abi import TIME_SHIFT, UID_BAN, UID_IPV6_PAIR, UID_MASK, WAYS, Reason

START = 1_000_000_000_000
SECOND = 1_000_000_000
SOURCE = Key(src=Lengths(32, 64))


def packet(source: int) -> bytes:
    return ethernet(0x0800, ipv4(source.to_bytes(4, "big"), b"\xc6\x33\x64\1", 17, udp(1000, 2000)))


def colliding(kernel: Kernel, count: int, uid: int, first: int = 0x0A000001) -> list[bytes]:
    """Packets of sources whose buckets all lie in set 0."""
    found: list[bytes] = []
    source = first
    while len(found) < count:
        frame = packet(source)
        if SOURCE.fingerprint(SECRET, uid, parse(frame)) % kernel.dp.sizes.sets == 0:
            found.append(frame)
        source += 1
    return found


def drain(kernel: Kernel, frame: bytes, now: int) -> int:
    """Send until refused; how many passed."""
    count = 0
    while kernel.run(frame, now).action == XDP_PASS:
        count += 1
        assert count < 1000
    return count


def test_an_idle_bucket_goes_before_a_live_one(kernel: Kernel) -> None:
    uid = publish(kernel, [limit(rate="10/s", burst="5", key="src")]).uid
    frames = colliding(kernel, WAYS + 1, uid)
    idle, live, newcomer = frames[0], frames[1:WAYS], frames[WAYS]
    kernel.run(idle, START)
    now = START + SECOND
    assert [drain(kernel, frame, now) for frame in live] == [5] * (WAYS - 1)
    assert drain(kernel, newcomer, now) == 5
    assert [drain(kernel, frame, now) for frame in live] == [0] * (WAYS - 1)
    assert kernel.table_counter("evicted_live") == 0


def test_a_newcomer_to_a_full_set_of_live_buckets_inherits_the_smallest_debt(kernel: Kernel) -> None:
    uid = publish(kernel, [limit(rate="10/s", burst="5", key="src")]).uid
    *frames, newcomer = colliding(kernel, WAYS + 1, uid)
    for position, frame in enumerate(frames):
        for _ in range(3 if position == 4 else 5):
            kernel.run(frame, START)
    assert drain(kernel, newcomer, START) == 2
    assert kernel.table_counter("evicted_live") == 1


def test_a_newcomer_starts_full_where_the_table_opens_on_overflow(kernel: Kernel) -> None:
    uid = publish(kernel, [limit(rate="10/s", burst="5", key="src")], table_full_open=True).uid
    *frames, newcomer = colliding(kernel, WAYS + 1, uid)
    for frame in frames:
        drain(kernel, frame, START)
    assert drain(kernel, newcomer, START) == 5


def test_pushing_ones_own_bucket_out_of_the_table_gains_nothing(kernel: Kernel) -> None:
    uid = publish(kernel, [limit(rate="10/s", burst="5", key="src")]).uid
    attacker, *helpers = colliding(kernel, 200, uid)
    admitted, now = 0, START
    for round_ in range(50):
        now = START + round_ * SECOND // 100
        admitted += drain(kernel, attacker, now)
        for helper in helpers:
            kernel.run(helper, now)
    assert admitted <= 5 + (now - START) * 10 / SECOND


def test_a_spoofed_flood_forgets_no_live_bucket_while_idle_ones_exist(kernel: Kernel) -> None:
    """One way of each set is the innocent's; the flood's own buckets are idle again at each step."""
    uid = publish(
        kernel,
        [
            limit(rate="1/s", burst="10", key="src", match="src 10.0.0.0/8"),
            limit(rate="1000000/s", burst="1", key="src", match="src 172.16.0.0/12", name="stranger"),
        ],
    ).uid
    innocent = colliding(kernel, 1, uid)[0]
    assert drain(kernel, innocent, START) == 10
    for step in range(20_000):
        kernel.run(packet(0xAC100000 + step), START + step * 1000)
    assert kernel.table_counter("inserted") > 15_000
    assert kernel.run(innocent, START + SECOND // 2).reason == Reason.LIMIT
    assert kernel.table_counter("evicted_live") == 0


def test_the_smallest_tat_of_a_set_never_falls(kernel: Kernel) -> None:
    uid = publish(kernel, [limit(rate="10/s", burst="5", key="src")]).uid
    least = 0
    for step, frame in enumerate(colliding(kernel, 100, uid)):
        kernel.run(frame, START + step * 1_000_000)
        smallest = int(kernel.dp.buckets["tat"][0].min())
        assert smallest >= least
        least = smallest


def test_a_ban_that_takes_a_place_over_lowers_no_tat_and_lasts_as_long(kernel: Kernel) -> None:
    publish(kernel, [limit(rate="1/h", burst="1", key="src", action="ban", ban_for="1s")])
    banned = colliding(kernel, 1, UID_BAN)[0]
    debt = (START + 3600 * SECOND) << TIME_SHIFT
    kernel.dp.buckets["fingerprint"][0] = [8 * kernel.dp.sizes.sets * (way + 1) for way in range(WAYS)]
    kernel.dp.buckets["tat"][0] = debt
    assert kernel.run(banned, START).reason == Reason.CONFORMS
    assert kernel.run(banned, START).reason == Reason.LIMIT
    assert kernel.table_counter("bans") == 1
    assert int(kernel.dp.buckets["tat"][0].min()) == debt
    assert kernel.run(banned, START + 2 * SECOND).reason == Reason.KERNEL_BAN


def test_a_ban_is_not_shortened_by_what_its_packet_gives_back(kernel: Kernel) -> None:
    published = publish(
        kernel,
        [
            limit("a", rate="1/h", burst="5", key="src"),
            limit("b", rate="1/h", burst="1", key="dst", action="ban", ban_for="30m"),
        ],
    )
    uid = published.numbers["a"].uid
    frame = next(
        frame
        for frame in colliding(kernel, 10_000, UID_BAN)
        if SOURCE.fingerprint(SECRET, uid, parse(frame)) % kernel.dp.sizes.sets == 0
    )
    assert kernel.run(packet(0xC0000201), START).reason == Reason.CONFORMS  # the last that "b" passes
    kernel.dp.buckets["fingerprint"][0] = [8 * kernel.dp.sizes.sets * (way + 1) for way in range(WAYS)]
    kernel.dp.buckets["tat"][0] = (START + 5 * 3600 * SECOND) << TIME_SHIFT
    kernel.dp.buckets["tat"][0, 3] = (START + SECOND) << TIME_SHIFT
    assert kernel.run(frame, START).slot == published.numbers["b"].slot
    assert kernel.table_counter("bans") == 1
    assert kernel.run(frame, START + 1799 * SECOND).reason == Reason.KERNEL_BAN


def test_a_newcomer_takes_the_way_that_its_fingerprint_names_or_an_idle_one_beside_it(
    kernel: Kernel,
) -> None:
    uid = publish(kernel, [limit(rate="10/s", burst="5", key="src")]).uid
    frames = colliding(kernel, 60, uid)
    named = [SOURCE.fingerprint(SECRET, uid, parse(frame)) for frame in frames]
    first = [(f, way) for f, way in zip(frames, named, strict=True) if way >> 61 == named[0] >> 61]
    own, beside, across = (named[0] >> 61 ^ nth for nth in (0, 1, 4))
    for count, (frame, fingerprint) in enumerate(first[:5]):
        kernel.run(frame, START)
        at = kernel.dp.buckets["fingerprint"][0].tolist().index(fingerprint)
        assert at == (own, beside, own ^ 2, own ^ 3, across)[count]


def test_a_bucket_beside_the_named_way_is_found_when_that_falls_idle(kernel: Kernel) -> None:
    uid = publish(kernel, [limit(rate="10/s", burst="5", key="src")]).uid
    frames = colliding(kernel, 60, uid)
    named = [SOURCE.fingerprint(SECRET, uid, parse(frame)) >> 61 for frame in frames]
    one, other = [frame for frame, way in zip(frames, named, strict=True) if way == named[0]][:2]
    kernel.run(one, START)
    assert drain(kernel, other, START) == 5
    kernel.dp.buckets["tat"][0, named[0]] = 1
    assert kernel.run(other, START).reason == Reason.LIMIT
    assert kernel.table_counter("inserted") == 2


def test_every_insertion_is_counted_and_every_key_has_one_bucket(kernel: Kernel) -> None:
    publish(kernel, [limit(rate="10/s", burst="5", key="src")])
    for source in range(0x0A000000, 0x0A000000 + 40):
        for _ in range(3):
            kernel.run(packet(source), START)
    fingerprints = kernel.dp.buckets["fingerprint"]
    used = fingerprints[fingerprints != 0]
    assert len(np.unique(used)) == len(used) == kernel.table_counter("inserted") == 40


V4, V6, V6B = (
    ip_address(text).packed for text in ("192.0.2.9", "2001:db8:1:2:3:4:5:6", "2001:db8:9:8:7:6:5:4")
)
TCP_V4 = ethernet(0x0800, ipv4(V4, b"\xc6\x33\x64\1", 6, tcp(1234, 443, 2)))
TCP_V6 = ethernet(0x86DD, ipv6(V6, V6B, 6, tcp(1234, 443, 2)))
MAPPED = bytes(10) + b"\xff\xff"


@pytest.mark.parametrize(
    ("key", "frame", "dport", "address"),
    [
        ("src", TCP_V4, 0, MAPPED + V4),
        ("src/24", TCP_V4, 0, MAPPED + b"\xc0\0\2\0"),
        ("src", TCP_V6, 0, V6[:8] + bytes(8)),
        ("dst", TCP_V4, 0, MAPPED + b"\xc6\x33\x64\1"),
        ("dst", TCP_V6, 0, V6B),
        ("src+dport", TCP_V4, 443, MAPPED + V4),
        ("src+dst", TCP_V4, 0, V4 + b"\xc6\x33\x64\1" + bytes(8)),
        ("flow", TCP_V4, 443, V4 + b"\xc6\x33\x64\1" + b"\x04\xd2\x06" + bytes(5)),
        ("src+dst/32+dst6/64", TCP_V6, 0, V6[:8] + V6B[:8]),
    ],
    ids=[
        "src",
        "src/24",
        "src of IPv6",
        "dst",
        "dst of IPv6",
        "src+dport",
        "src+dst",
        "flow",
        "both of IPv6",
    ],
)
def test_a_bucket_is_named_for_people_by_its_key(
    kernel: Kernel, key: str, frame: bytes, dport: int, address: bytes
) -> None:
    uid = publish(kernel, [limit(rate="10/s", burst="5", key=key)]).uid
    kernel.run(frame, START)
    names = kernel.dp.bucket_keys["key"][kernel.dp.buckets["fingerprint"] != 0]
    assert len(names) == 1
    assert int(names[0]["uid"]) & UID_MASK == uid
    assert bool(int(names[0]["uid"]) & UID_IPV6_PAIR) is (frame is TCP_V6 and "src+dst" in key)
    assert int(names[0]["dport"]) == dport
    assert names[0]["addr"].tobytes() == address
