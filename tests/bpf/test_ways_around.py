# SPDX-License-Identifier: Apache-2.0
"""What a sender may write into a packet so that a limit or a ban does not see it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from support.bpf import XDP_DROP, Kernel
from support.policy import limit, publish
from support.reference.frames import ethernet, ipv4, ipv6, udp
from valkyrie.control.abi import Reason
from valkyrie.control.limits import Ban, Desired, Override

START = 1_000_000_000_000
WEEK = 7 * 86400 * 1_000_000_000
YEAR = 365 * 86400 * 1_000_000_000
PRIORITY, TEN, OUTER = (0x8100, 0xE000), (0x8100, 10), (0x88A8, 10)
SIX_TO_FOUR, NATIVE, MAPPED = "2002:c000:201::1", "2001:db8::1", "::ffff:192.0.2.1"


def frame(src: str = "", tags: tuple[tuple[int, int], ...] = (), *, dst: str = "") -> bytes:
    """From `src` to `dst`, of one IP version; an end that is left out is of the version of the other."""
    four = ":" not in src + dst
    source = ip_address(src or ("192.0.2.1" if four else "3fff::1")).packed
    destination = ip_address(dst or ("198.51.100.1" if four else "3fff::2")).packed
    if four:
        return ethernet(0x0800, ipv4(source, destination, 17, udp(1000, 53)), tags)
    return ethernet(0x86DD, ipv6(source, destination, 17, udp(1000, 53)), tags)


def at_end(end: str, address: str) -> bytes:
    """A frame with this address at the end `src` or `dst`."""
    return frame(address) if end == "src" else frame(dst=address)


def reasons(kernel: Kernel, frames: list[bytes], weeks: int = 0) -> list[Reason]:
    """Of frames that arrive at once, after so many weeks: every bucket is full again."""
    return [kernel.run(one, START + weeks * WEEK).reason for one in frames]


@pytest.mark.parametrize(
    "tags", [(TEN,), (OUTER,), (PRIORITY, TEN), ((0x88A8, 0), TEN), (OUTER, PRIORITY), (TEN, (0x8100, 20))]
)
def test_a_tag_without_an_id_hides_no_vlan(kernel: Kernel, tags: tuple[tuple[int, int], ...]) -> None:
    publish(kernel, [limit(rate="1/h", burst="1", match="vlan 10")])
    assert reasons(kernel, [frame(tags=tags)] * 2) == [Reason.CONFORMS, Reason.LIMIT]
    assert reasons(kernel, [frame(), frame(tags=(PRIORITY,))]) == [Reason.NO_LIMIT] * 2


@pytest.mark.parametrize("tags", [(), (PRIORITY,), (PRIORITY, PRIORITY)])
def test_a_priority_makes_no_vlan_of_an_untagged_frame(
    kernel: Kernel, tags: tuple[tuple[int, int], ...]
) -> None:
    publish(kernel, [limit(rate="1/h", burst="1", match="vlan none")])
    assert reasons(kernel, [frame(tags=tags)] * 2) == [Reason.CONFORMS, Reason.LIMIT]
    assert reasons(kernel, [frame(tags=(TEN,))]) == [Reason.NO_LIMIT]


@pytest.mark.parametrize("end", ["src", "dst"])
@pytest.mark.parametrize("others", ["", "10.0.0.0/8,"])
@pytest.mark.parametrize(
    ("prefix", "inside", "beside"),
    [
        ("::/0", [SIX_TO_FOUR, MAPPED], []),
        ("2000::/3", [SIX_TO_FOUR], [MAPPED]),
        ("2002::/15", [SIX_TO_FOUR], [MAPPED]),
        ("::/16", [MAPPED], [SIX_TO_FOUR]),
        ("2001:db8::/32,2003::/16", [NATIVE], [MAPPED, SIX_TO_FOUR]),
    ],
)
def test_an_ipv6_prefix_holds_the_ipv4_that_is_written_inside_of_it_and_no_other(
    kernel: Kernel, end: str, others: str, prefix: str, inside: list[str], beside: list[str]
) -> None:
    publish(kernel, [limit(rate="1/h", burst="1", match=f"{end} {others}{prefix}")])
    for week, address in enumerate(inside):
        frames = [at_end(end, address)] * 2
        assert reasons(kernel, frames, week) == [Reason.CONFORMS, Reason.LIMIT]
    elsewhere = [at_end(end, address) for address in (*beside, "192.0.2.1", "198.51.100.1")]
    assert reasons(kernel, elsewhere) == [Reason.NO_LIMIT] * len(elsewhere)


@pytest.mark.parametrize("key", ["src", "dst"])
@pytest.mark.parametrize("others", [(), ("10.0.0.0/8",)])
@pytest.mark.parametrize(
    ("prefix", "inside", "beside"),
    [
        ("::/0", [SIX_TO_FOUR, MAPPED], []),
        ("2000::/3", [SIX_TO_FOUR], [MAPPED]),
        ("::/16", [MAPPED], [SIX_TO_FOUR]),
    ],
)
def test_an_override_of_ipv6_holds_for_the_ipv4_that_is_written_inside_of_it_and_no_other(
    kernel: Kernel, key: str, others: tuple[str, ...], prefix: str, inside: list[str], beside: list[str]
) -> None:
    overrides = [Override(limit="one", prefix=each, rate="1/h", burst="1") for each in (prefix, *others)]
    publish(kernel, desired=Desired.of([limit(rate="1/h", burst="3", key=key)], overrides))
    for week, address in enumerate([*inside, *beside, "192.0.2.1"]):
        frames = [at_end(key, address)] * 4
        burst = 1 if address in inside else 3
        assert reasons(kernel, frames, week) == [Reason.CONFORMS] * burst + [Reason.LIMIT] * (4 - burst)


def test_an_override_of_the_ipv4_address_comes_before_one_of_ipv6_around_it(kernel: Kernel) -> None:
    overrides = [
        Override(limit="one", prefix="0.0.0.0/0", rate="1/h", burst="4"),
        Override(limit="one", prefix="2002::/15", rate="1/h", burst="1"),
        Override(limit="one", prefix="::/80", rate="1/h", burst="2"),
    ]
    publish(kernel, desired=Desired.of([limit(rate="1/h", burst="3", key="src6/128")], overrides))
    for week, address in enumerate((SIX_TO_FOUR, MAPPED, "192.0.2.1")):
        assert reasons(kernel, [frame(address)] * 5, week) == [Reason.CONFORMS] * 4 + [Reason.LIMIT]


def test_each_embedding_has_the_override_around_it(kernel: Kernel) -> None:
    overrides = [
        Override(limit="one", prefix="2002::/15", rate="1/h", burst="1"),
        Override(limit="one", prefix="::/80", rate="1/h", burst="2"),
    ]
    publish(kernel, desired=Desired.of([limit(rate="1/h", burst="3", key="src6/128")], overrides))
    for week, (address, burst) in enumerate([(SIX_TO_FOUR, 1), (MAPPED, 2), ("192.0.2.1", 3)]):
        assert reasons(kernel, [frame(address)] * 4, week).count(Reason.CONFORMS) == burst


@pytest.mark.parametrize(
    ("prefix", "banned"),
    [
        ("::/0", [NATIVE, SIX_TO_FOUR, MAPPED]),
        ("2000::/3", [NATIVE, SIX_TO_FOUR]),
        ("::/16", [MAPPED]),
        ("2001::/16", [NATIVE]),
    ],
)
def test_a_ban_of_ipv6_holds_for_the_ipv4_that_is_written_inside_of_it_and_no_other(
    kernel: Kernel, prefix: str, banned: list[str]
) -> None:
    publish(kernel, desired=Desired.of(bans=[Ban(prefix=prefix)]))
    for address in (NATIVE, SIX_TO_FOUR, MAPPED, "192.0.2.1"):
        expected = Reason.BAN if address in banned else Reason.NO_LIMIT
        assert kernel.run(frame(address), START).reason == expected, address


def test_the_longest_ban_is_a_ban_years_after_boot(kernel: Kernel) -> None:
    publish(kernel, [limit(rate="1/h", burst="1", key="src", action="ban", ban_for="833d")])
    late = 6 * YEAR
    kernel.run(frame(), late)
    assert kernel.run(frame(), late).action == XDP_DROP
    assert kernel.run(frame(), late + 2 * YEAR).reason == Reason.KERNEL_BAN
