# SPDX-License-Identifier: Apache-2.0
"""Matches: which packets a limit is about. Text in, a frozen Match out, and canonical text back.

    src 10.0.0.0/8,2001:db8::/32  dst ..  proto tcp,udp  sport 1-1023,8080  dport 443  vlan 10,none
    dscp ef,af11,0-7  syn  tcp-flags SYN/SYN,ACK  icmp-type echo-request  length 0-128
    fragments skip|match|only|never  iface eth0,eth1  ip 4|6

All that is said must hold; the entries of a list are alternatives; the empty text is every packet.
`syn` and `tcp-flags` imply `proto tcp`, `icmp-type` implies `proto icmp,icmp6`; ports alone mean every
protocol that has ports. A later fragment has no ports, flags or ICMP type: by default (skip) it does not
match a limit that asks for one, under `match` it does, `only` is fragments alone, first and later, and
`never` no fragments at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields

from valkyrie.control import words as vocabulary
from valkyrie.control.errors import InvalidInput
from valkyrie.control.prefix import Prefix, parse_prefix
from valkyrie.control.words import ICMP, ICMP6, TCP, WITH_PORTS, Ranges, format_ranges, items, number, ranges

MAX_TEXT = 8 * 1024 * 1024  # characters: 100,000 IPv6 prefixes take 5 million
LONGEST_LIST = 400_000  # characters: every port by itself
MOST_PREFIXES = 100_000
_INTERFACE = re.compile(r"[^\s/:,\x00-\x20]{1,15}")
_SYN = (vocabulary.TCP_FLAGS["SYN"], vocabulary.TCP_FLAGS["SYN"] | vocabulary.TCP_FLAGS["ACK"])


@dataclass(frozen=True, slots=True)
class Match:
    """Empty tuples and None: not constrained. `tcp_flags` is (set, looked at) as bits of the flag byte."""

    src: tuple[Prefix, ...] = ()
    dst: tuple[Prefix, ...] = ()
    proto: tuple[int, ...] = ()
    sport: Ranges = ()
    dport: Ranges = ()
    vlan: Ranges = ()
    untagged: bool = False
    dscp: Ranges = ()
    tcp_flags: tuple[int, int] | None = None
    icmp_type: tuple[str, ...] = ()
    length: Ranges = ()
    fragments: str = "skip"
    iface: tuple[str, ...] = ()
    ip: int | None = None

    def icmp_types(self, protocol: int) -> tuple[int, ...]:
        """Type numbers that `icmp_type` stands for under ICMP or ICMP6; none if `proto` excludes it."""
        names = vocabulary.ICMP4_TYPES if protocol == ICMP else vocabulary.ICMP6_TYPES
        if protocol not in self.proto:
            return ()
        known = (int(word) if word.isdigit() else names.get(word) for word in self.icmp_type)
        return tuple(sorted({value for value in known if value is not None}))


def parse_match(text: str) -> Match:
    """The match that `text` says; raises InvalidInput naming the word that is wrong."""
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"a match of {len(text)} characters", f"at most {MAX_TEXT}")
    said: dict[str, object] = {}
    rest = iter(text.split())
    for word in rest:
        name = "tcp-flags" if word == "syn" else word
        if name not in _READERS:
            raise InvalidInput(f"unknown word {word[:64]!r} in a match", _hint(word), word[:64])
        if name.replace("-", "_") in said or (name == "vlan" and "untagged" in said):
            raise InvalidInput(f"{word} is there twice", "write one list: dport 80,443", word)
        value = "SYN/SYN,ACK" if word == "syn" else next(rest, None)
        if value is None:
            raise InvalidInput(f"{word} has no value", f"for example {_EXAMPLES[word]}", word)
        if name not in ("src", "dst") and len(value) > LONGEST_LIST:
            raise InvalidInput(
                f"{name} has a list of {len(value)} characters", "write ranges, as 1-1023", name
            )
        said.update(_READERS[name](name, value))
    return _settle(Match(**said))  # type: ignore[arg-type]


def format_match(match: Match) -> str:
    """Canonical text: parse_match(format_match(m)) == m."""
    parts = []
    for field in fields(Match):
        value = getattr(match, field.name)
        if value != field.default and field.name in _WRITERS:
            parts.append(_WRITERS[field.name](value))
    if match.vlan or match.untagged:
        listed = [format_ranges(match.vlan)] if match.vlan else []
        parts.append("vlan " + ",".join([*listed, *(["none"] if match.untagged else [])]))
    return " ".join(parts)


def _hint(word: str) -> str:
    if "," in word or word[:1].isdigit():
        return "a list is written without spaces: dport 80,443"
    return vocabulary.suggest(word, [*_READERS, "syn"], "a match is made of")


def _settle(match: Match) -> Match:
    """Make explicit what is implied, and refuse what can never match."""
    proto = match.proto
    if match.tcp_flags:
        _only(match, (TCP,), "tcp-flags")
        proto = (TCP,)
    if match.icmp_type:
        _only(match, (ICMP, ICMP6), "icmp-type")
        proto = proto or (ICMP, ICMP6)
    if match.tcp_flags and match.icmp_type:
        raise InvalidInput("no packet has both tcp-flags and an icmp-type", "make two limits", "icmp-type")
    if match.sport or match.dport:
        _only(match, tuple(sorted(WITH_PORTS)), "ports")
        if match.icmp_type:
            raise InvalidInput("no packet has both ports and an icmp-type", "make two limits", "icmp-type")
    _check_versions(match)
    settled = Match(**{field.name: getattr(match, field.name) for field in fields(Match)} | {"proto": proto})
    if match.icmp_type and not any(settled.icmp_types(protocol) for protocol in (ICMP, ICMP6)):
        known = vocabulary.ICMP4_TYPES if ICMP in proto else vocabulary.ICMP6_TYPES
        what = f"icmp-type {','.join(match.icmp_type)} is none of this protocol's"
        raise InvalidInput(what, f"types: {', '.join(known)}", "icmp-type")
    return settled


def _only(match: Match, allowed: tuple[int, ...], what: str) -> None:
    """Refuse protocols that do not have `what`."""
    for protocol in match.proto:
        if protocol not in allowed:
            names = format_ranges(tuple((value, value) for value in allowed), vocabulary.PROTOCOLS)
            name = format_ranges(((protocol, protocol),), vocabulary.PROTOCOLS)
            raise InvalidInput(f"{what} with proto {name}: it has none", f"only {names} do", name)


def _check_versions(match: Match) -> None:
    """Refuse address prefixes and `ip` that exclude one another."""
    versions = {4, 6} if match.ip is None else {match.ip}
    for field, prefixes in (("src", match.src), ("dst", match.dst)):
        there = {prefix.version for prefix in prefixes}
        if there and not there & versions:
            what = f"no packet matches: {field} is IPv{there.pop()} only, the rest IPv{versions.pop()} only"
            raise InvalidInput(what, "make the IP versions agree", field)
        versions &= there or versions


Reader = Callable[[str, str], dict[str, object]]


def _prefixes(field: str, text: str) -> dict[str, object]:
    if text.count(",") >= MOST_PREFIXES:
        what = f"{field} lists {text.count(',') + 1} prefixes"
        raise InvalidInput(what, f"at most {MOST_PREFIXES} in all limits together", field)
    return {field: tuple(sorted({parse_prefix(word) for word in items(field, text)}))}


def _protocols(field: str, text: str) -> dict[str, object]:
    listed = {number(field, word, 0, 255, vocabulary.PROTOCOLS) for word in items(field, text)}
    return {field: tuple(sorted(listed))}


def _numbers(low: int, high: int, names: dict[str, int] | None = None) -> Reader:
    return lambda field, text: {field: ranges(field, items(field, text), low, high, names)}


def _vlans(field: str, text: str) -> dict[str, object]:
    entries = items(field, text)
    tags = [word for word in entries if word != "none"]
    return {"vlan": ranges(field, tags, 0, 4095), "untagged": len(tags) < len(entries)}


def _flags(field: str, text: str) -> dict[str, object]:
    wanted, slash, looked_at = text.upper().partition("/")
    value = _flag_bits(field, wanted)
    mask = _flag_bits(field, looked_at) if slash else value
    if mask == 0 or value & ~mask:
        raise InvalidInput(
            f"{field} {text[:64]!r}: flags before the slash must be among those after it",
            "SYN/SYN,ACK is SYN set and ACK not",
            text[:64],
        )
    return {"tcp_flags": (value, mask)}


def _flag_bits(field: str, text: str) -> int:
    bits = 0
    for word in [] if text == "NONE" else items(field, text):
        if word not in vocabulary.TCP_FLAGS:
            known = ", ".join(vocabulary.TCP_FLAGS)
            what = f"{field}: {word[:64]!r} is no TCP flag"
            raise InvalidInput(what, f"flags: {known}, or NONE", word[:64])
        bits |= vocabulary.TCP_FLAGS[word]
    return bits


def _icmp_types(field: str, text: str) -> dict[str, object]:
    names = vocabulary.ICMP4_TYPES | vocabulary.ICMP6_TYPES
    listed = set()
    for word in items(field, text):
        value = number(field, word, 0, 255, names)
        listed.add(word.lower() if word.lower() in names else str(value))
    return {"icmp_type": tuple(sorted(listed))}


def _fragments(field: str, text: str) -> dict[str, object]:
    if text not in vocabulary.FRAGMENTS:
        hint = f"one of {', '.join(vocabulary.FRAGMENTS)}"
        raise InvalidInput(f"{field}: {text[:64]!r} is unknown", hint, text[:64])
    return {field: text}


def _interfaces(field: str, text: str) -> dict[str, object]:
    entries = items(field, text)
    for word in entries:
        if not _INTERFACE.fullmatch(word) or word in (".", ".."):
            what = f"{field}: {word[:64]!r} is no interface name"
            raise InvalidInput(what, "1 to 15 characters, as eth0", word[:64])
    return {field: tuple(sorted(set(entries)))}


def _version(field: str, text: str) -> dict[str, object]:
    if text not in ("4", "6"):
        raise InvalidInput(f"{field}: {text[:64]!r} is unknown", "write ip 4 or ip 6", text[:64])
    return {field: int(text)}


_READERS: dict[str, Reader] = {
    "src": _prefixes,
    "dst": _prefixes,
    "proto": _protocols,
    "sport": _numbers(0, 65535),
    "dport": _numbers(0, 65535),
    "vlan": _vlans,
    "dscp": _numbers(0, 63, vocabulary.DSCP),
    "tcp-flags": _flags,
    "icmp-type": _icmp_types,
    "length": _numbers(0, 65535),
    "fragments": _fragments,
    "iface": _interfaces,
    "ip": _version,
}
_EXAMPLES = {
    "src": "src 203.0.113.0/24", "dst": "dst 2001:db8::/32", "proto": "proto tcp,udp", "sport": "sport 53",
    "dport": "dport 80,443", "vlan": "vlan 10,none", "dscp": "dscp ef", "tcp-flags": "tcp-flags SYN/SYN,ACK",
    "icmp-type": "icmp-type echo-request", "length": "length 0-128", "fragments": "fragments match",
    "iface": "iface eth0", "ip": "ip 6",
}  # fmt: skip


def _write_flags(flags: tuple[int, int]) -> str:
    if flags == _SYN:
        return "syn"
    wanted, mask = (
        ",".join(name for name, bit in vocabulary.TCP_FLAGS.items() if bits & bit) or "NONE" for bits in flags
    )
    return f"tcp-flags {wanted}/{mask}"


def _listed(field: str, names: dict[str, int] | None = None) -> Callable[[Ranges], str]:
    return lambda spans: f"{field} {format_ranges(spans, names)}"


_WRITERS: dict[str, Callable[..., str]] = {
    "src": lambda prefixes: "src " + ",".join(map(str, prefixes)),
    "dst": lambda prefixes: "dst " + ",".join(map(str, prefixes)),
    "proto": lambda values: "proto " + format_ranges(tuple((v, v) for v in values), vocabulary.PROTOCOLS),
    "sport": _listed("sport"),
    "dport": _listed("dport"),
    "dscp": _listed("dscp", vocabulary.DSCP),
    "tcp_flags": _write_flags,
    "icmp_type": lambda types: "icmp-type " + ",".join(types),
    "length": _listed("length"),
    "fragments": lambda policy: f"fragments {policy}",
    "iface": lambda names: "iface " + ",".join(names),
    "ip": lambda version: f"ip {version}",
}
