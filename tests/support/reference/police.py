# SPDX-License-Identifier: Apache-2.0
"""A frame and a time to a verdict: control, guards, kernel bans, limits; and what is counted on the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from support.reference.bucket import Charge, Plan, Table, time_units
from support.reference.key import Key, ban_fingerprint
from support.reference.match import Match, Prefix, covers, longest
from support.reference.packet import Address, Packet
from support.reference.parser import parse
from valkyrie.control.abi import NO_SLOT, Action, Measure, Reason

FOR_EVER = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Override:
    """Another plan for an address (source, or destination when the key has no source)."""

    prefix: Prefix
    plan: Plan


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit as the data plane sees it. `slot` names its counters, `uid` its buckets."""

    name: str
    slot: int
    uid: int
    match: Match
    key: Key
    plan: Plan
    action: Action = Action.DROP
    measure: Measure = Measure.PACKETS
    ban_ns: int = 0
    overrides: tuple[Override, ...] = ()

    def tokens(self, packet: Packet) -> int:
        """How many tokens the packet costs."""
        if self.measure == Measure.PACKETS:
            return 1
        return packet.length if self.measure == Measure.IP_BYTES else packet.frame_length

    def plan_for(self, packet: Packet) -> Plan:
        """The plan of the longest override that covers the packet's address, else the limit's own."""
        address = packet.dst if self.key.dst and not self.key.src else packet.src
        assert address is not None
        covering = {entry.prefix: entry.plan for entry in self.overrides if covers(entry.prefix, address)}
        return covering[longest(covering)] if covering else self.plan


@dataclass(frozen=True, slots=True)
class Timed:
    """A prefix that is exempt or banned until `until` (ns since boot)."""

    prefix: Prefix
    until: int = FOR_EVER


@dataclass(frozen=True, slots=True)
class Rules:
    """What packets are held against; limits in the order in which they are charged."""

    limits: tuple[Limit, ...] = ()
    protects: tuple[Prefix, ...] = ()
    exempts: tuple[Timed, ...] = ()
    bans: tuple[Timed, ...] = ()
    malformed_drop: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """Pass or drop, why, and the slot of the limit that dropped."""

    passed: bool
    reason: Reason
    slot: int = NO_SLOT


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the limit at a position would say; `level`: time units its bucket is short of full."""

    position: int
    cost: int
    level: int
    tau: int
    fingerprint: int

    @property
    def conforms(self) -> bool:
        """Whether the bucket holds the packet's tokens. What CPUs hold on lease is not looked at."""
        return self.level + self.cost <= self.tau


@dataclass(slots=True)
class LimitCounters:
    """As struct limit_stats. `matched` counts the packets that the limit was asked about."""

    matched: int = 0
    passed: int = 0
    dropped: int = 0
    shadow_dropped: int = 0
    matched_bytes: int = 0
    dropped_bytes: int = 0
    shadow_dropped_bytes: int = 0
    undone_bytes: int = 0


@dataclass(slots=True)
class Police:
    """The data plane's state: buckets and counters. One frame at a time, on one CPU."""

    rules: Rules
    secret: tuple[int, int]
    table: Table
    reasons: Counter[Reason] = field(default_factory=Counter)
    counters: dict[int, LimitCounters] = field(default_factory=dict)
    bans_made: int = 0

    def police(self, frame: bytes, now_ns: int, interface: str | None = None) -> Verdict:
        """Decide on a frame that arrives at `now_ns` (since boot) and account for it."""
        packet = parse(frame)
        verdict = self._decide(packet, now_ns, interface)
        self.reasons[verdict.reason] += 1
        return verdict

    def explain(self, frame: bytes, now_ns: int, interface: str | None = None) -> list[Explanation]:
        """What each limit that the frame gets to would say, in their order; nothing changes."""
        packet, now = parse(frame), time_units(now_ns)
        if self._before_limits(packet, now_ns) is not None:
            return []
        said = []
        for position, limit in enumerate(self.rules.limits):
            if limit.match.holds(packet, interface):
                plan = limit.plan_for(packet)
                fingerprint = limit.key.fingerprint(self.secret, limit.uid, packet)
                bucket = self.table.find(fingerprint)
                level = max(bucket.tat - now, 0) if bucket else 0
                cost = plan.cost(limit.tokens(packet))
                said.append(Explanation(position, cost, level, plan.tau, fingerprint))
        return said

    def _decide(self, packet: Packet, now_ns: int, interface: str | None) -> Verdict:
        return self._before_limits(packet, now_ns) or self._limits(packet, now_ns, interface)

    def _before_limits(self, packet: Packet, now_ns: int) -> Verdict | None:
        """The verdict of what comes before limits; None: the limits decide."""
        if packet.reason in (Reason.CONTROL, Reason.NOT_IP):
            return Verdict(True, packet.reason)
        if packet.control:
            return Verdict(True, Reason.CONTROL)
        if packet.src is not None:
            guarded = self._guards(packet.src, now_ns)
            if guarded is not None:
                return guarded
        if packet.reason is not None:
            return Verdict(not self.rules.malformed_drop, packet.reason)
        if self._kernel_banned(packet, now_ns):
            return Verdict(False, Reason.KERNEL_BAN)
        return None

    def _guards(self, source: Address, now_ns: int) -> Verdict | None:
        """Nobody gets past a limit by putting an exempt IPv4 address into an IPv6 one; a ban finds him."""
        rules = self.rules
        if not source.embedded:
            if any(covers(prefix, source) for prefix in rules.protects):
                return Verdict(True, Reason.PROTECTED)
            if any(covers(exempt.prefix, source) and now_ns < exempt.until for exempt in rules.exempts):
                return Verdict(True, Reason.EXEMPT)
        if any(covers(ban.prefix, source) and now_ns < ban.until for ban in rules.bans):
            return Verdict(False, Reason.BAN)
        return None

    def _kernel_banned(self, packet: Packet, now_ns: int) -> bool:
        if all(limit.action != Action.BAN for limit in self.rules.limits):
            return False
        bucket = self.table.find(ban_fingerprint(self.secret, packet))
        return bucket is not None and bucket.tat > time_units(now_ns)

    def _limits(self, packet: Packet, now_ns: int, interface: str | None) -> Verdict:
        """Charge limit after limit; at the first refusal by an enforcing one, give all back."""
        matching = [limit for limit in self.rules.limits if limit.match.holds(packet, interface)]
        if not matching:
            return Verdict(True, Reason.NO_LIMIT)
        charges: list[Charge] = []
        for limit in matching:
            counters = self.counters.setdefault(limit.slot, LimitCounters())
            counters.matched += 1
            counters.matched_bytes += packet.length
            charge = self._take(limit, packet, now_ns)
            if charge is not None:
                charges.append(charge)
            elif limit.action == Action.SHADOW:
                counters.shadow_dropped += 1
                counters.shadow_dropped_bytes += packet.length
            else:
                for earlier in reversed(charges):
                    earlier.undo()
                for before in matching[: matching.index(limit)]:
                    self.counters[before.slot].undone_bytes += packet.length
                return self._refuse(limit, packet, now_ns)
        for limit in matching:
            self.counters[limit.slot].passed += 1
        return Verdict(True, Reason.CONFORMS)

    def _take(self, limit: Limit, packet: Packet, now_ns: int) -> Charge | None:
        plan = limit.plan_for(packet)
        fingerprint = limit.key.fingerprint(self.secret, limit.uid, packet)
        return self.table.take(fingerprint, plan, plan.cost(limit.tokens(packet)), time_units(now_ns))

    def _refuse(self, limit: Limit, packet: Packet, now_ns: int) -> Verdict:
        counters = self.counters[limit.slot]
        counters.dropped += 1
        counters.dropped_bytes += packet.length
        if limit.action == Action.BAN:
            bucket = self.table.bucket(ban_fingerprint(self.secret, packet), time_units(now_ns))
            bucket.tat = max(bucket.tat, time_units(now_ns + limit.ban_ns))
            self.bans_made += 1
        return Verdict(False, Reason.LIMIT, limit.slot)
