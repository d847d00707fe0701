# SPDX-License-Identifier: Apache-2.0
"""One policy in two forms: the texts that people type, and the reference's own understanding of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from random import Random
from typing import Literal

from support.reference.bucket import Plan
from support.reference.key import Key, Lengths
from support.reference.match import Match, Prefix
from support.reference.police import FOR_EVER, Limit, Override, Rules, Timed
from valkyrie.control import limits as control
from valkyrie.control.abi import Action, Measure

SECOND = 1_000_000_000
PlanOf = Callable[[control.Limit, control.Override | None], Plan]


@dataclass(frozen=True, slots=True)
class Phrase:
    """A limit as text beside what the text means."""

    text: control.Limit
    match: Match
    key: Key
    ban_ns: int = 0
    overrides: tuple[control.Override, ...] = ()


@dataclass(frozen=True, slots=True)
class Guarded:
    """A prefix exempt or banned until so many seconds since boot; None: for ever."""

    prefix: Prefix
    until: int | None = None

    @property
    def timed(self) -> Timed:
        return Timed(self.prefix, FOR_EVER if self.until is None else self.until * SECOND)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole policy. `interface`: as what NIC the frames come in, None for one that is not ours."""

    limits: tuple[Phrase, ...] = ()
    protects: tuple[Prefix, ...] = ()
    exempts: tuple[Guarded, ...] = ()
    bans: tuple[Guarded, ...] = ()
    malformed_drop: bool = True
    full_open: bool = False
    interface: str | None = None

    def desired(self) -> control.Desired:
        """As the control plane is told it; times are seconds since boot, as wall time that began then."""
        return control.Desired.of(
            limits=[phrase.text for phrase in self.limits],
            overrides=[override for phrase in self.limits for override in phrase.overrides],
            exempts=[control.Exempt(prefix=str(e.prefix), until=e.until) for e in self.exempts],
            bans=[control.Ban(prefix=str(b.prefix), until=b.until) for b in self.bans],
            protects=[str(prefix) for prefix in self.protects],
        )

    def rules(self, order: list[str], uids: dict[str, tuple[int, int]], plan_of: PlanOf) -> Rules:
        """As the reference reads it. `uids`: (slot, uid) by name; `order`: in which limits are charged."""
        by_name = {phrase.text.name: phrase for phrase in self.limits}
        return Rules(
            limits=tuple(_limit(by_name[name], uids[name], plan_of) for name in order),
            protects=self.protects,
            exempts=tuple(e.timed for e in self.exempts),
            bans=tuple(b.timed for b in self.bans),
            malformed_drop=self.malformed_drop,
        )


def _limit(phrase: Phrase, numbers: tuple[int, int], plan_of: PlanOf) -> Limit:
    slot, uid = numbers
    overrides = (Override(ip_network(o.prefix), plan_of(phrase.text, o)) for o in phrase.overrides)
    return Limit(
        name=phrase.text.name,
        slot=slot,
        uid=uid,
        match=phrase.match,
        key=phrase.key,
        plan=plan_of(phrase.text, None),
        action=Action[phrase.text.action.upper()],
        measure={"packets": Measure.PACKETS, "ip": Measure.IP_BYTES, "frame": Measure.FRAME_BYTES}[
            phrase.text.measure
        ],
        ban_ns=phrase.ban_ns,
        overrides=tuple(overrides),
    )


V4_PREFIXES = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/0",
        "0.0.0.0/32",
        "10.0.0.0/8",
        "10.0.0.0/24",
        "10.0.0.0/31",
        "10.0.0.1/32",
        "10.0.1.0/24",
        "128.0.0.0/1",
        "192.0.2.0/24",
        "198.51.100.4/30",
        "255.255.255.255/32",
    )
)
V6_PREFIXES = tuple(
    ip_network(text)
    for text in (
        "::/0",
        "::/16",
        "::/128",
        "::1/128",
        "2000::/3",
        "2001:db8::/32",
        "2001:db8::/63",
        "2001:db8::/64",
        "2001:db8::1/128",
        "2001:db8:0:1::/64",
        "2001:db8:0:1:8000::/65",
        "2002::/15",
        "2003::/16",
        "fe80::/10",
    )
)
KEYS = (
    ("global", Key()),
    ("src", Key(src=Lengths(32, 64))),
    ("src/24", Key(src=Lengths(24, 64))),
    ("src6/48", Key(src=Lengths(32, 48))),
    ("src/31+src6/128", Key(src=Lengths(31, 128))),
    ("src/1+src6/1", Key(src=Lengths(1, 1))),
    ("dst", Key(dst=Lengths(32, 128))),
    ("dst/16+dst6/32", Key(dst=Lengths(16, 32))),
    ("src+dst", Key(src=Lengths(32, 64), dst=Lengths(32, 128))),
    ("src+dport", Key(src=Lengths(32, 64), dport=True)),
    ("dst/24+sport", Key(dst=Lengths(24, 128), sport=True)),
    ("sport+dport", Key(sport=True, dport=True)),
    ("flow", Key(Lengths(32, 128), Lengths(32, 128), sport=True, dport=True, protocol=True)),
)
PACKET_RATES = (
    ("10/s", "1"),
    ("10/s", "5"),
    ("1000/s", "20"),
    ("1/h", "2"),
    ("100/m", None),
    ("3/s", "7"),
    ("50/s", "900"),
)
BYTE_RATES = (
    ("10KB/s", "1514B"),
    ("1mbit/s", "3KB"),
    ("3MB/m", "2KiB"),
    ("400gbit/s", "64KB"),
    ("7bit/s", "2KB"),
)
ICMP_WORDS = {
    "echo-request": frozenset({(1, 8), (58, 128)}),
    "redirect": frozenset({(1, 5), (58, 137)}),
    "time-exceeded": frozenset({(1, 11), (58, 3)}),
    "neighbour-solicitation": frozenset({(58, 135)}),
    "8": frozenset({(1, 8), (58, 8)}),
    "0": frozenset({(1, 0), (58, 0)}),
}
PROTOCOL_WORDS = {
    "icmp": 1,
    "tcp": 6,
    "udp": 17,
    "gre": 47,
    "esp": 50,
    "icmp6": 58,
    "sctp": 132,
    "33": 33,
    "60": 60,
}
PORT_LISTS = (
    ("53", ((53, 53),)),
    ("0", ((0, 0),)),
    ("80,443", ((80, 80), (443, 443))),
    ("1-1023", ((1, 1023),)),
    ("0-65535", ((0, 65535),)),
    ("1024-65535,68", ((1024, 65535), (68, 68))),
)


def random_prefixes(rng: Random, versions: tuple[int, ...]) -> tuple[Prefix, ...]:
    """A few, at least one of each version."""
    pools: dict[int, tuple[Prefix, ...]] = {4: V4_PREFIXES, 6: V6_PREFIXES}
    return tuple(
        prefix for version in versions for prefix in rng.sample(pools[version], rng.choice((1, 1, 2, 4)))
    )


def random_scenario(rng: Random, most_limits: int = 6) -> Scenario:
    """A policy over the pools of frames.py, in which most frames meet something."""
    names = [f"l{i}" for i in range(rng.randrange(most_limits + 1))]
    rng.shuffle(names)
    return Scenario(
        limits=tuple(random_phrase(rng, name) for name in names),
        protects=random_prefixes(rng, (4, 6))[-2:] if rng.randrange(4) == 0 else (),
        exempts=_random_guards(rng),
        bans=_random_guards(rng),
        malformed_drop=rng.choice((True, False)),
        full_open=rng.choice((True, False)),
        interface=rng.choice((None, "eth0")),
    )


def _random_guards(rng: Random) -> tuple[Guarded, ...]:
    if rng.randrange(3):
        return ()
    prefixes = dict.fromkeys(random_prefixes(rng, rng.choice(((4,), (6,), (4, 6)))))
    return tuple(Guarded(prefix, rng.choice((None, 1000, 1001, 1100))) for prefix in prefixes)


def random_phrase(rng: Random, name: str) -> Phrase:
    """A limit of that name."""
    match, match_text = random_match(rng)
    key_text, key = rng.choice(KEYS)
    in_bytes = rng.randrange(3) == 0
    rate, burst = rng.choice(BYTE_RATES if in_bytes else PACKET_RATES)
    action: Literal["drop", "shadow", "ban"] = rng.choice(("drop", "drop", "shadow", "ban"))
    ban_for, ban_ns = rng.choice((("1s", SECOND), ("100ms", SECOND // 10), ("1h", 3600 * SECOND)))
    limit = control.Limit(
        name=name,
        match=match_text,
        key=key_text,
        rate=rate,
        burst=burst,
        action=action,
        ban_for=ban_for if action == "ban" else None,
        measure=rng.choice(("ip", "frame")) if in_bytes else "packets",
    )
    overrides: tuple[control.Override, ...] = ()
    ends = key.src or key.dst
    if ends and rng.randrange(2):
        pool = BYTE_RATES if in_bytes else PACKET_RATES
        wide = [p for p in random_prefixes(rng, (4, 6)) if p.prefixlen <= (ends.v4, ends.v6)[p.version == 6]]
        overrides = tuple(_random_override(rng, name, pool, str(prefix)) for prefix in wide)
    return Phrase(limit, match, key, ban_ns if action == "ban" else 0, overrides)


def _random_override(
    rng: Random, name: str, pool: tuple[tuple[str, str | None], ...], prefix: str
) -> control.Override:
    rate, burst = rng.choice(pool)
    return control.Override(limit=name, prefix=prefix, rate=rate, burst=burst)


def random_match(rng: Random) -> tuple[Match, str]:
    """A match and its text: none, one or several constraints that can hold together."""
    said: list[str] = []
    fields: dict[str, object] = {}
    versions = rng.choice(((4,), (6,), (4, 6), (4, 6)))

    def say(chance: int, text: str, **meaning: object) -> None:
        if rng.randrange(chance) == 0:
            said.append(text)
            fields.update(meaning)

    for end in ("src", "dst"):
        prefixes = random_prefixes(rng, versions)
        say(3, f"{end} {','.join(map(str, prefixes))}", **{end: prefixes})
    if len(versions) == 1:
        say(2, f"ip {versions[0]}", version=versions[0])
    _say_layer4(rng, say)
    say(6, "vlan none", vlan=(None,))
    if "vlan" not in fields:
        say(6, "vlan 10,none,4095", vlan=(10, None, 4095))
    say(6, "dscp ef,af11", dscp=((46, 46), (10, 10)))
    say(8, "length 0-60,128-1000", lengths=((0, 60), (128, 1000)))
    say(8, "iface eth0,eth1", interfaces=("eth0", "eth1"))
    policy = rng.choice(("skip", "match", "only", "never"))
    say(3, f"fragments {policy}", fragments=policy)
    rng.shuffle(said)
    return Match(**fields), " ".join(said)  # type: ignore[arg-type]


def _say_layer4(rng: Random, say: Callable[..., None]) -> None:
    """Protocol, and ports or flags or ICMP types that go with it."""
    kind = rng.randrange(7)
    words = {0: ("tcp", "udp"), 1: ("tcp",), 2: ("icmp", "icmp6"), 3: ("udp", "sctp", "tcp")}.get(kind)
    chosen = (
        rng.sample(words, rng.randrange(1, len(words) + 1)) if words else rng.sample([*PROTOCOL_WORDS], 2)
    )
    say(
        2 if kind != 2 else 1, f"proto {','.join(chosen)}", protocols=tuple(PROTOCOL_WORDS[w] for w in chosen)
    )
    if kind in (0, 3):
        for end in ("sport", "dport"):
            text, ranges = rng.choice(PORT_LISTS)
            say(2, f"{end} {text}", **{end: ranges})
    elif kind == 1:
        text, flags = rng.choice(
            (("syn", (2, 18)), ("tcp-flags SYN/SYN,ACK", (2, 18)), ("tcp-flags NONE/FIN,RST", (0, 5)))
        )
        say(1, text, tcp_flags=flags)
    elif kind == 2:
        usable = [
            w
            for w, pairs in ICMP_WORDS.items()
            if any(PROTOCOL_WORDS[c] == p for c in chosen for p, _ in pairs)
        ]
        listed = rng.sample(usable, min(2, len(usable)))
        pairs = frozenset().union(*(ICMP_WORDS[word] for word in listed))
        say(1, f"icmp-type {','.join(listed)}", icmp=pairs)
