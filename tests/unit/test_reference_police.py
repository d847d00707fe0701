# SPDX-License-Identifier: Apache-2.0
"""The order in which a verdict is found, on the reference itself."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

from support.reference.bucket import Plan, Table, time_units
from support.reference.frames import ethernet, icmp_echo, ipv4, ipv6, udp
from support.reference.key import Key, Lengths
from support.reference.match import Match
from support.reference.police import Limit, Override, Police, Rules, Timed, Verdict
from valkyrie.control.abi import Action, Reason

SECOND = 1_000_000_000
NOW = 1000 * SECOND
SOURCE = Key(src=Lengths(32, 64))
ONE_A_SECOND = Plan(mult=time_units(SECOND), shift=0, tau=time_units(SECOND))
TWO_A_SECOND = Plan(mult=time_units(SECOND), shift=0, tau=2 * time_units(SECOND))
ONE = Limit("one", slot=1, uid=1, match=Match(), key=SOURCE, plan=ONE_A_SECOND)
LEFT, RIGHT = ip_address("10.0.0.1").packed, ip_address("192.0.2.1").packed


def from_v4(source: str = "10.0.0.1", size: int = 0) -> bytes:
    return ethernet(0x0800, ipv4(ip_address(source).packed, RIGHT, 17, udp(1000, 53, bytes(size))))


def from_v6(source: str, destination: str = "2001:db8::53") -> bytes:
    packet = ipv6(ip_address(source).packed, ip_address(destination).packed, 17, udp(1000, 53))
    return ethernet(0x86DD, packet)


def police(*limits: Limit, **rules: object) -> Police:
    return Police(Rules(limits=limits, **rules), (1, 2), Table(sets=64))  # type: ignore[arg-type]


def reasons(state: Police, *frames: bytes, now: int = NOW) -> list[Reason]:
    return [state.police(frame, now).reason for frame in frames]


def test_without_a_limit_everything_passes() -> None:
    assert police().police(from_v4(), NOW) == Verdict(True, Reason.NO_LIMIT)


def test_the_limit_that_refuses_is_named() -> None:
    state = police(ONE)
    assert state.police(from_v4(), NOW) == Verdict(True, Reason.CONFORMS)
    assert state.police(from_v4(), NOW) == Verdict(False, Reason.LIMIT, 1)
    counters = state.counters[1]
    assert (counters.matched, counters.passed, counters.dropped) == (2, 1, 1)
    assert (counters.matched_bytes, counters.dropped_bytes, counters.undone_bytes) == (56, 28, 0)


def test_a_refused_packet_gives_back_what_earlier_limits_took() -> None:
    wide = replace(ONE, name="wide", slot=2, uid=2, key=Key(), plan=TWO_A_SECOND)
    state = police(wide, ONE)
    assert reasons(state, from_v4(), from_v4(), from_v4("10.0.0.2"), from_v4("10.0.0.3")) == [
        Reason.CONFORMS,
        Reason.LIMIT,
        Reason.CONFORMS,
        Reason.LIMIT,
    ]
    assert (state.counters[2].matched, state.counters[2].dropped, state.counters[1].dropped) == (4, 1, 1)
    assert state.counters[1].matched == 3


def test_a_shadow_limit_counts_and_drops_nothing() -> None:
    state = police(replace(ONE, action=Action.SHADOW))
    assert reasons(state, from_v4(), from_v4()) == [Reason.CONFORMS] * 2
    assert (state.counters[1].shadow_dropped, state.counters[1].passed) == (1, 2)


def test_a_ban_drops_the_source_until_it_ends() -> None:
    state = police(replace(ONE, action=Action.BAN, ban_ns=60 * SECOND))
    assert reasons(state, from_v4(), from_v4(), from_v4()) == [
        Reason.CONFORMS,
        Reason.LIMIT,
        Reason.KERNEL_BAN,
    ]
    assert reasons(state, from_v4(), now=NOW + 60 * SECOND - 1) == [Reason.KERNEL_BAN]
    assert reasons(state, from_v4(), now=NOW + 60 * SECOND) == [Reason.CONFORMS]


def test_protected_before_exempt_before_banned() -> None:
    prefix = ip_network("10.0.0.1/32")
    exempts, bans = (Timed(prefix, NOW + 1),), (Timed(prefix, NOW + 2),)
    assert reasons(police(protects=(prefix,), exempts=exempts, bans=bans), from_v4()) == [Reason.PROTECTED]
    state = police(exempts=exempts, bans=bans)
    times = (NOW, NOW + 1, NOW + 2)
    assert [state.police(from_v4(), now).reason for now in times] == [
        Reason.EXEMPT,
        Reason.BAN,
        Reason.NO_LIMIT,
    ]


def test_an_exemption_does_not_reach_addresses_that_embed_it_and_a_ban_does() -> None:
    prefix = ip_network("10.0.0.0/8")
    hidden = [from_v6("2002:a00:1::1"), from_v6("::ffff:10.0.0.1")]
    assert reasons(police(protects=(prefix,), exempts=(Timed(prefix),)), *hidden) == [Reason.NO_LIMIT] * 2
    assert reasons(police(bans=(Timed(prefix),)), *hidden) == [Reason.BAN] * 2


def test_an_embedded_address_shares_the_bucket_of_its_ipv4_address() -> None:
    state = police(ONE)
    assert reasons(state, from_v4(), from_v6("2002:a00:1::1"), from_v6("::ffff:10.0.0.1")) == [
        Reason.CONFORMS,
        Reason.LIMIT,
        Reason.LIMIT,
    ]


def test_malformed_packets_are_guarded_and_then_meet_their_policy() -> None:
    broken = ethernet(0x0800, ipv4(LEFT, RIGHT, 17, b"\0\1"))
    prefix = ip_network("10.0.0.1/32")
    assert police().police(broken, NOW) == Verdict(False, Reason.BAD_UDP)
    assert police(malformed_drop=False).police(broken, NOW) == Verdict(True, Reason.BAD_UDP)
    assert police(exempts=(Timed(prefix),)).police(broken, NOW) == Verdict(True, Reason.EXEMPT)
    assert police(bans=(Timed(prefix),)).police(broken, NOW) == Verdict(False, Reason.BAN)


def test_neighbour_discovery_passes_even_when_banned() -> None:
    solicitation = ipv6(bytes(16), bytes(16), 58, b"\x87" + bytes(23), hop_limit=255)
    state = police(bans=(Timed(ip_network("::/0")),))
    assert reasons(state, ethernet(0x86DD, solicitation)) == [Reason.CONTROL]


def test_the_longest_override_wins() -> None:
    fast, none = Plan(mult=0, shift=0, tau=1), Plan(mult=2, shift=0, tau=1)
    overrides = (
        Override(ip_network("10.0.0.0/8"), none),
        Override(ip_network("10.0.0.0/24"), fast),
        Override(ip_network("10.0.0.9/32"), none),
    )
    state = police(replace(ONE, overrides=overrides))
    frames = from_v4("10.0.0.1"), from_v4("10.0.0.9"), from_v4("10.1.0.1"), from_v4("192.0.2.1")
    assert reasons(state, *frames) == [Reason.CONFORMS, Reason.LIMIT, Reason.LIMIT, Reason.CONFORMS]


def test_a_key_of_ports_tells_ports_apart_and_a_portless_packet_has_port_0() -> None:
    state = police(replace(ONE, key=Key(src=Lengths(32, 64), sport=True)))
    other = ethernet(0x0800, ipv4(LEFT, RIGHT, 17, udp(1001, 53)))
    assert reasons(state, from_v4(), other, from_v4()) == [Reason.CONFORMS, Reason.CONFORMS, Reason.LIMIT]
    port_zero = ethernet(0x0800, ipv4(LEFT, RIGHT, 17, udp(0, 53)))
    echo = ethernet(0x0800, ipv4(LEFT, RIGHT, 1, icmp_echo()))
    assert reasons(state, echo, port_zero) == [Reason.CONFORMS, Reason.LIMIT]


def test_later_fragments_meet_port_limits_as_the_limit_says() -> None:
    later = ethernet(0x0800, ipv4(LEFT, RIGHT, 17, bytes(8), fragment=1))
    of_icmp = ethernet(0x0800, ipv4(LEFT, RIGHT, 1, bytes(8), fragment=1))
    dns = {
        p: police(replace(ONE, match=Match(dport=((53, 53),), fragments=p)))
        for p in ("skip", "match", "only")
    }
    assert [reasons(state, later)[0] for state in dns.values()] == [
        Reason.NO_LIMIT,
        Reason.CONFORMS,
        Reason.CONFORMS,
    ]
    assert [reasons(state, of_icmp)[0] for state in dns.values()] == [Reason.NO_LIMIT] * 3
    assert reasons(dns["only"], from_v4()) == [Reason.NO_LIMIT]
    assert reasons(police(replace(ONE, match=Match(fragments="never"))), later, from_v4()) == [
        Reason.NO_LIMIT,
        Reason.CONFORMS,
    ]
