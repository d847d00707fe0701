# SPDX-License-Identifier: Apache-2.0
"""Matches round-trip through their canonical text, and wrong words are named with what would be right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkyrie.control import words
from valkyrie.control.errors import InvalidInput
from valkyrie.control.match import Match, format_match, parse_match
from valkyrie.control.prefix import Prefix, canonical_prefix, embedded, parse_prefix


def spans(high: int) -> st.SearchStrategy[words.Ranges]:
    pair = st.tuples(st.integers(0, high), st.integers(0, high)).map(lambda p: (min(p), max(p)))
    return st.lists(pair, max_size=4).map(words.merge)


@st.composite
def prefixes(draw: st.DrawFn, version: int) -> Prefix:
    size = 4 if version == 4 else 16
    length = draw(st.integers(0, size * 8))
    value = draw(st.integers(0, 2**length - 1)) << (size * 8 - length)
    return Prefix(version, value.to_bytes(size, "big"), length)


@st.composite
def matches(draw: st.DrawFn) -> Match:
    lists = st.lists(st.one_of(prefixes(4), prefixes(6)).filter(lambda p: embedded(p) is None), max_size=4)
    kind = draw(st.sampled_from(["ports", "flags", "icmp", "other"]))
    mask = draw(st.integers(1, 255))
    settled = {
        "ports": {"proto": (6, 17), "sport": draw(spans(65535)), "dport": draw(spans(65535))},
        "flags": {"proto": (6,), "tcp_flags": (draw(st.integers(0, 255)) & mask, mask)},
        "icmp": {"proto": (1, 58), "icmp_type": draw(st.sampled_from([("13", "echo-reply"), ("0",)]))},
        "other": {"proto": tuple(sorted(draw(st.sets(st.integers(0, 255), max_size=3))))},
    }[kind]
    return Match(
        src=tuple(sorted(set(draw(lists)))),
        vlan=draw(spans(4095)),
        untagged=draw(st.booleans()),
        dscp=draw(spans(63)),
        length=draw(spans(65535)),
        fragments=draw(st.sampled_from(words.FRAGMENTS)),
        iface=draw(st.sampled_from([(), ("eth0",), ("br-lan", "eth0.10")])),
        **settled,  # type: ignore[arg-type]
    )


@given(matches())
def test_parsing_the_canonical_text_gives_the_same_match(match: Match) -> None:
    assert parse_match(format_match(match)) == match


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("dport 443,80 proto tcp", "proto tcp dport 80,443"),
        ("src 1.2.3.4", "src 1.2.3.4/32"),
        ("src 2001:DB8:0:0::/32,10.0.0.0/8", "src 10.0.0.0/8,2001:db8::/32"),
        ("dport 1-10,5-20,21", "dport 1-21"),
        ("syn", "proto tcp syn"),
        ("tcp-flags syn/syn,ack", "proto tcp syn"),
        ("tcp-flags none/SYN,ACK", "proto tcp tcp-flags NONE/SYN,ACK"),
        ("tcp-flags RST", "proto tcp tcp-flags RST/RST"),
        ("icmp-type echo-request", "proto icmp,icmp6 icmp-type echo-request"),
        ("vlan none,12,10-11", "vlan 10-12,none"),
        ("dscp 46,AF11", "dscp af11,ef"),
        ("proto 17,6", "proto tcp,udp"),
        ("fragments skip", ""),
        ("ip 6 iface eth1,eth0", "iface eth0,eth1 ip 6"),
    ],
)
def test_a_match_has_one_canonical_text(text: str, canonical: str) -> None:
    assert format_match(parse_match(text)) == canonical


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("sorc 10.0.0.0/8", "sorc", "did you mean src?"),
        ("proto tpc", "tpc", "did you mean tcp?"),
        ("proto 256", "256", "0 to 255"),
        ("dport 80, 443", "80,", "without spaces"),
        ("dport 80 443", "443", "without spaces"),
        ("dport 443-80", "443-80", "80-443"),
        ("dport 70000", "70000", "0 to 65535"),
        ("length 100-", "100-", "write 100-65535"),
        ("dport -80", "-80", "write 0-80"),
        ("dport http", "http", "a number"),
        ("dport", "dport", "dport 80,443"),
        ("dport 80 dport 81", "dport", "one list"),
        ("syn tcp-flags ACK", "tcp-flags", "one list"),
        ("src 10.0.0.1/8", "10.0.0.1/8", "10.0.0.0/8"),
        ("src 10.0.0.0/33", "10.0.0.0/33", "0 to 32"),
        ("src 10.0.0", "10.0.0", "203.0.113.0/24"),
        ("src 2002:c000:200::/40", "2002:c000:200::/40", "write 192.0.2.0/24"),
        ("dst ::ffff:192.0.2.0/120", "::ffff:192.0.2.0/120", "write 192.0.2.0/24"),
        ("dscp eff", "eff", "did you mean ef?"),
        ("tcp-flags SIN", "SIN", "SYN"),
        ("tcp-flags SYN,ACK/SYN", "SYN,ACK/SYN", "SYN/SYN,ACK"),
        ("syn proto udp", "udp", "only tcp"),
        ("proto gre dport 80", "gre", "tcp,udp,sctp"),
        ("proto icmp icmp-type packet-too-big", "icmp-type", "echo-request"),
        ("icmp-type ping", "ping", "0 to 255"),
        ("icmp-type echo-reply dport 80", "icmp-type", "two limits"),
        ("fragments maybe", "maybe", "skip, match, only, never"),
        ("iface eth0/1", "eth0/1", "eth0"),
        ("ip 5", "5", "ip 4 or ip 6"),
        ("ip 4 src 2001:db8::/32", "src", "agree"),
        ("src 10.0.0.0/8 dst 2001:db8::/32", "dst", "agree"),
        ("vlan 4096", "4096", "0 to 4095"),
    ],
)
def test_a_wrong_word_is_named_with_what_would_be_right(text: str, where: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_match(text)
    assert caught.value.where == where
    assert hint in caught.value.hint
    assert caught.value.what


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        match = parse_match(text)
    except InvalidInput as error:
        assert error.what  # noqa: PT017 either way is right
    else:
        assert parse_match(format_match(match)) == match


def test_icmp_names_mean_each_version_s_own_number() -> None:
    both = parse_match("icmp-type echo-request,timestamp-request,7")
    assert both.icmp_types(words.ICMP) == (7, 8, 13)
    assert both.icmp_types(words.ICMP6) == (7, 128)
    assert parse_match("proto icmp6 icmp-type echo-request").icmp_types(words.ICMP) == ()


@given(st.one_of(prefixes(4), prefixes(6)))
def test_prefixes_survive_the_round_trip_unless_they_embed_ipv4(prefix: Prefix) -> None:
    inside = embedded(prefix)
    if inside is None:
        assert parse_prefix(str(prefix)) == prefix
    else:
        with pytest.raises(InvalidInput) as caught:
            parse_prefix(str(prefix))
        assert str(inside) in caught.value.hint
        assert parse_prefix(str(inside)) == inside


def test_prefixes_have_one_text() -> None:
    assert canonical_prefix("2001:0DB8:0000::0001") == "2001:db8::1/128"
    assert parse_prefix("0.0.0.0/0") == Prefix(4, bytes(4), 0)
    for text in ("", "/8", "10.0.0.0/", "10.0.0.0/08x", "1.2.3.4\0", "10.0.0.0/-1", "::1%eth0"):
        with pytest.raises(InvalidInput, match="prefix"):
            parse_prefix(text)


def test_lists_longer_than_there_are_values_are_refused_unread() -> None:
    for text, where in (
        ("src " + "::/1," * 100_000 + "::/1", "src"),
        ("dport " + "1," * 300_000 + "1", "dport"),
    ):
        with pytest.raises(InvalidInput) as caught:
            parse_match(text)
        assert caught.value.where == where
    assert parse_match("dport " + ",".join(map(str, range(65536)))).dport == ((0, 65535),)
