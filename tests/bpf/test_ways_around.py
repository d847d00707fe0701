# SPDX-License-Identifier: Apache-2.0
"""What a sender may write into a packet so that a limit or a ban does not see it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from support.bpf import XDP_DROP, Kernel
from support.policy import limit, publish
from support.reference.frames import ethernet, ipv4, ipv6, udp
from valkyrie.control.abi import Reason
from valkyrie.control.limits import Ban, Desired

START = 1_000_000_000_000
YEAR = 365 * 86400 * 1_000_000_000
PRIORITY, TEN, OUTER = (0x8100, 0xE000), (0x8100, 10), (0x88A8, 10)
SIX_TO_FOUR, NATIVE, MAPPED = "2002:c000:201::1", "2001:db8::1", "::ffff:192.0.2.1"


def frame(src: str = "192.0.2.1", tags: tuple[tuple[int, int], ...] = ()) -> bytes:
    source = ip_address(src)
    if source.version == 4:
        return ethernet(0x0800, ipv4(source.packed, b"\xc6\x33\x64\1", 17, udp(1000, 53)), tags)
    destination = ip_address("2001:db8::2").packed
    return ethernet(0x86DD, ipv6(source.packed, destination, 17, udp(1000, 53)), tags)


def reasons(kernel: Kernel, frames: list[bytes]) -> list[Reason]:
    return [kernel.run(one, START).reason for one in frames]


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


@pytest.mark.parametrize("prefix", ["::/0", "2000::/3", "2002::/15"])
def test_a_prefix_around_6to4_holds_its_packets_and_none_of_ipv4(kernel: Kernel, prefix: str) -> None:
    publish(kernel, [limit(rate="1/h", burst="1", match=f"src {prefix}")])
    assert reasons(kernel, [frame(SIX_TO_FOUR)] * 2) == [Reason.CONFORMS, Reason.LIMIT]
    assert reasons(kernel, [frame("192.0.2.1"), frame("198.51.100.1")]) == [Reason.NO_LIMIT] * 2


def test_a_prefix_beside_6to4_holds_none_of_its_packets(kernel: Kernel) -> None:
    publish(kernel, [limit(rate="1/h", burst="1", match="src 2001:db8::/32,2003::/16")])
    assert reasons(kernel, [frame(NATIVE), frame(SIX_TO_FOUR)]) == [Reason.CONFORMS, Reason.NO_LIMIT]


def test_a_ban_of_all_ipv6_holds_for_ipv4_inside_of_it_and_not_for_ipv4(kernel: Kernel) -> None:
    publish(kernel, desired=Desired.of(bans=[Ban(prefix="::/0")]))
    assert reasons(kernel, [frame(NATIVE), frame(SIX_TO_FOUR), frame(MAPPED)]) == [Reason.BAN] * 3
    assert reasons(kernel, [frame("192.0.2.1")]) == [Reason.NO_LIMIT]


def test_the_longest_ban_is_a_ban_years_after_boot(kernel: Kernel) -> None:
    publish(kernel, [limit(rate="1/h", burst="1", key="src", action="ban", ban_for="833d")])
    late = 6 * YEAR
    kernel.run(frame(), late)
    assert kernel.run(frame(), late).action == XDP_DROP
    assert kernel.run(frame(), late + 2 * YEAR).reason == Reason.KERNEL_BAN
