# SPDX-License-Identifier: Apache-2.0
"""What each kind of rule reads off the sights of the last seconds. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from valkyrie.control.alerts.figures import rate_text, seconds_text, share_text
from valkyrie.control.alerts.kinds import When
from valkyrie.control.alerts.rules import ANY, Rule
from valkyrie.control.alerts.sight import Counts, Sight

RATE_S = 5.0  # rates are those of so many seconds
SHORTEST_S = 0.5  # over less they would be noise
MOST_SIGHTS = 64


@dataclass(frozen=True, slots=True)
class Window:
    """The sights of the last RATE_S seconds and a bit, with their times, the newest last."""

    sights: tuple[tuple[float, Sight], ...] = ()

    def seen(self, now: float, sight: Sight) -> Window:
        kept = self.sights
        while len(kept) > 1 and now - kept[1][0] >= RATE_S:
            kept = kept[1:]
        return Window((*kept[-MOST_SIGHTS + 1 :], (now, sight)))

    @property
    def newest(self) -> Sight | None:
        return self.sights[-1][1] if self.sights else None

    @property
    def before(self) -> Sight | None:
        return self.sights[-2][1] if len(self.sights) > 1 else None

    def rate(self, count: Callable[[Sight], int | None]) -> float | None:
        """A second, from the oldest sight that has the count. None: it is not known yet."""
        if not self.sights:
            return None
        now, newest = self.sights[-1]
        last = count(newest)
        if last is None:
            return None
        for then, sight in self.sights[:-1]:
            first = count(sight)
            if first is not None:
                if now - then < SHORTEST_S:
                    return None
                # What was set to zero in between counts from there.
                return (last - first if last >= first else last) / (now - then)
        return None


@dataclass(frozen=True, slots=True)
class Reading:
    """`value` None: there is such a subject, and nothing is known of it. `what` is for people."""

    subject: str
    value: float | None
    what: Callable[[], str]
    tags: Mapping[str, str] = field(default_factory=dict)


Readings = Sequence[Reading] | None
Reader = Callable[[Rule, Window], Readings]


def read(rule: Rule, window: Window) -> Readings:
    """A reading for each subject of the rule; None: it cannot be known, so all stays as it was."""
    return READERS[rule.when](rule, window)


def _limits(rule: Rule, window: Window, of: Callable[[Rule, Window, str], Reading]) -> Readings:
    newest = window.newest
    if newest is None or newest.limits is None:
        return None
    names = newest.limits if rule.which == ANY else [rule.which] if rule.which in newest.limits else []
    return [of(rule, window, name) for name in names]


def _limit_rate(window: Window, name: str, column: str) -> float | None:
    def count(sight: Sight) -> int | None:
        found: Counts | None = None if sight.limits is None else sight.limits.get(name)
        return None if found is None else int(getattr(found, column))

    return window.rate(count)


def _drop_rate(rule: Rule, window: Window) -> Readings:
    def of(rule: Rule, window: Window, name: str) -> Reading:
        rate = _limit_rate(window, name, "dropped")
        return Reading(name, rate, lambda: f"{name} drops {rate_text(rate or 0)}", {"limit": name})

    return _limits(rule, window, of)


def _shadow_rate(rule: Rule, window: Window) -> Readings:
    def of(rule: Rule, window: Window, name: str) -> Reading:
        rate = _limit_rate(window, name, "shadow")
        return Reading(name, rate, lambda: f"{name} would drop {rate_text(rate or 0)}", {"limit": name})

    return _limits(rule, window, of)


def _drop_share(rule: Rule, window: Window) -> Readings:
    def of(rule: Rule, window: Window, name: str) -> Reading:
        matched, dropped = (_limit_rate(window, name, column) for column in ("matched", "dropped"))
        share: float | None = None
        if matched is not None and dropped is not None:
            share = dropped / matched if matched >= max(rule.terms.at_least, 1e-9) else 0.0

        def what() -> str:
            return f"{name} drops {share_text(share or 0)} of {rate_text(matched or 0)}"

        return Reading(name, share, what, {"limit": name})

    return _limits(rule, window, of)


def _top_talker(rule: Rule, window: Window) -> Readings:
    newest = window.newest
    drops = window.rate(lambda sight: sight.dropped)
    if newest is None or newest.talkers is None or drops is None:
        return None
    if drops < rule.terms.at_least:
        return []

    def of(source: str, limit: str, share: float) -> Reading:
        def what() -> str:
            return (
                f"{source} is {share_text(share)} of the drops, under {limit}; {rate_text(drops or 0)} in all"
            )

        return Reading(f"{source} {limit}", share, what, {"source": source, "limit": limit})

    return [of(one.source, one.limit, one.share) for one in newest.talkers]


def _table_full(rule: Rule, window: Window) -> Readings:
    used = None if window.newest is None else window.newest.used
    if used is None:
        return None
    return [Reading("", used, lambda: f"{share_text(used)} of the table's buckets are in use")]


def _counter(window: Window, name: str, words: str) -> Readings:
    rate = window.rate(lambda sight: None if sight.table is None else sight.table.get(name, 0))
    return None if rate is None else [Reading("", rate, lambda: f"{words}: {rate_text(rate)}")]


def _evicting(rule: Rule, window: Window) -> Readings:
    return _counter(window, "evicted_live", "buckets in use are taken over by newcomers")


def _lost(rule: Rule, window: Window) -> Readings:
    return _counter(window, "events_lost", "the kernel's ring has no room for events")


def _detached(rule: Rule, window: Window) -> Readings:
    newest = window.newest
    if newest is None or newest.nics is None:
        return None

    def of(name: str, present: bool, attached: bool) -> Reading:
        why = "it has no program: nothing is limited there" if present else "the host has none of that name"
        return Reading(name, float(not attached), lambda: f"{name} is not policed: {why}", {"nic": name})

    return [of(nic.name, nic.present, nic.attached) for nic in newest.nics if rule.which in (ANY, nic.name)]


def _down(rule: Rule, window: Window) -> Readings:
    newest = window.newest
    if newest is None or newest.nics is None:
        return None

    def of(name: str, down: bool) -> Reading:
        return Reading(name, float(down), lambda: f"{name}: the link is down", {"nic": name})

    return [
        of(nic.name, nic.present and not nic.running) for nic in newest.nics if rule.which in (ANY, nic.name)
    ]


def _switched(rule: Rule, window: Window) -> Readings:
    store = None if window.newest is None else window.newest.store
    if store is None:
        return None
    before = None if window.before is None else window.before.store
    switched = before is not None and store.switches > before.switches
    elsewhere = store.in_use != store.first

    def what() -> str:
        used = store.in_use or "no store"
        return (
            f"{used} is in use in place of {store.first}" if elsewhere else f"{store.first} was away shortly"
        )

    return [Reading("", float(elsewhere or switched), what, {"store": store.in_use or "none"})]


def _no_store(rule: Rule, window: Window) -> Readings:
    store = None if window.newest is None else window.newest.store
    if store is None:
        return None
    return [
        Reading("", float(store.in_use is None), lambda: f"no store serves; {store.first}: {store.problem}")
    ]


def _breaker(rule: Rule, window: Window) -> Readings:
    store = None if window.newest is None else window.newest.store
    if store is None:
        return None
    before = None if window.before is None else window.before.store
    known = {} if before is None else before.breakers

    def of(name: str, opened: int) -> Reading:
        holds = name in store.open or opened > known.get(name, opened)
        return Reading(name, float(holds), lambda: f"{name} failed again and again", {"store": name})

    return [of(name, opened) for name, opened in store.breakers.items()]


def _lag(rule: Rule, window: Window) -> Readings:
    newest = window.newest
    if newest is None or newest.sync_lag is None:
        return None
    lag, how = newest.sync_lag, newest.sync_what
    if not newest.synced:
        return []
    return [Reading("", lag, lambda: f"what is kept in the store is {seconds_text(lag)} behind ({how})")]


def _old(rule: Rule, window: Window) -> Readings:
    newest = window.newest
    if newest is None or newest.credentials is None:
        return None

    def of(name: str, age: float) -> Reading:
        return Reading(
            name, age, lambda: f"credential {name} is {seconds_text(age)} old", {"credential": name}
        )

    return [of(name, age) for name, age in newest.credentials.items() if rule.which in (ANY, name)]


def _restarted(rule: Rule, window: Window) -> Readings:
    restarted = "" if window.newest is None else window.newest.restarted
    return [Reading("", float(bool(restarted)), lambda: f"valkyried was started again: {restarted}")]


def _event(rule: Rule, window: Window) -> Readings:
    kind = rule.event or ""
    told = {} if window.newest is None else window.newest.events
    return [Reading(kind, float(kind in told), lambda: told.get(kind, ""), {"event": kind})]


READERS: dict[When, Reader] = {
    "drop-rate": _drop_rate,
    "drop-share": _drop_share,
    "shadow-rate": _shadow_rate,
    "top-talker": _top_talker,
    "table-full": _table_full,
    "table-evicting": _evicting,
    "nic-detached": _detached,
    "nic-down": _down,
    "store-switched": _switched,
    "store-none": _no_store,
    "breaker-open": _breaker,
    "sync-lag": _lag,
    "credential-old": _old,
    "daemon-restarted": _restarted,
    "events-lost": _lost,
    "event": _event,
}
