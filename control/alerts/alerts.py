# SPDX-License-Identifier: Apache-2.0
"""Operations on alerts: look at them, add rules, silence; and the task that watches."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from valkyrie.adapters.notify.message import Severity
from valkyrie.control.alerts.book import Book
from valkyrie.control.alerts.engine import MOST_ALERTS, Alert
from valkyrie.control.alerts.figures import TEXT, parse_seconds
from valkyrie.control.alerts.kinds import KINDS
from valkyrie.control.alerts.outbox import Outbox, Submit
from valkyrie.control.alerts.readings import read
from valkyrie.control.alerts.rulebook import Entry, judged, rulebook, watched
from valkyrie.control.alerts.rules import ANY, Rule, made
from valkyrie.control.alerts.settings import MAX_RULES
from valkyrie.control.alerts.silences import MOST_SILENCES, MOST_WHY, Silence, all_tags, checked_match
from valkyrie.control.alerts.watch import LOOK_S, Look, Times, Watch
from valkyrie.control.audit import Actor
from valkyrie.control.errors import Conflict, InvalidInput, NotFound
from valkyrie.control.notes import Tell
from valkyrie.control.service.core import Core
from valkyrie.control.service.limits import known

log = logging.getLogger(__name__)

MAX_SILENCE_S = 90 * 86400.0


class Alerts:
    """`look(restarted)` takes a sight of the appliance; `told(kind, what)` shows a note to followers of the
    events. Messages go to the log until `submit_to` says where else.
    """

    def __init__(self, core: Core, look: Look, told: Tell) -> None:
        self._core = core
        self._watch = Watch(
            Book(core.settings.state_dir / "alerts.db"),
            Outbox(),
            look,
            told,
            self._times,
            core.node,
        )
        self._complained: set[str] = set()

    def _times(self) -> Times:
        clock = self._core.clock
        return Times(clock.mono_ns() / 1e9, clock.wall())

    def submit_to(self, submit: Submit) -> None:
        """Who delivers messages from now on."""
        self._watch.outbox.submit = submit

    def hear(self, event: Mapping[str, Any]) -> None:
        """A note that was told. For the event loop's thread; costs the same however many there are."""
        self._watch.tally.hear(event)

    async def run(self) -> None:
        """For ever: a look each LOOK_S."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Once."""
        await self._watch.ready()
        entries = self._entries()
        problems = {f"alert rule {one.rule.name}: {one.problem}" for one in entries if one.problem}
        for problem in sorted(problems - self._complained):
            log.warning("%s", problem)
        self._complained = problems
        await self._watch.once(watched(entries), self._core.settings.alerts)

    async def close(self) -> None:
        """Write how things stand, within a second. Again: nothing."""
        await self._watch.close(self._core.settings.alerts)

    def _entries(self) -> list[Entry]:
        world, sight = self._core.world, self._watch.sight
        credentials = None if sight is None else sight.credentials
        entries = rulebook(self._core.settings.alerts, self._watch.added)
        return judged(entries, world.limits, world.nics, credentials)

    def firing(self) -> dict[str, int]:
        """How many fire of each severity."""
        found = Counter(alert.severity for alert in self._watch.state.firing())
        return {severity.name.lower(): found[severity] for severity in Severity}

    def status(self) -> dict[str, Any]:
        """`problems`: rules that watch nothing, messages that cannot be told, a state that is not written."""
        firing = self._watch.state.firing()
        silent = sum(map(self._watch.silent, firing))
        outbox = self._watch.outbox
        problems = [
            f"rule {entry.rule.name}: {entry.problem}"
            for entry in self._entries()
            if entry.problem and entry.rule.enabled
        ]
        if self._watch.problem:
            problems.append(self._watch.problem)
        if outbox.problem:
            problems.append(f"{len(outbox.waiting())} messages wait: {outbox.problem}")
        if outbox.lost:
            problems.append(f"{outbox.lost} messages could not be told and are in the log alone")
        if self._watch.state.crowded:
            problems.append(
                f"{self._watch.state.crowded} more would fire than the {MOST_ALERTS} there is room for"
            )
        worst = max((alert.severity for alert in firing), default=None)
        return {
            "firing": len(firing),
            "silenced": silent,
            "worst": None if worst is None else worst.name.lower(),
            "problems": problems,
        }

    async def list(self) -> dict[str, Any]:
        """Raises StateError."""
        await self._watch.load()
        times = self._times()
        alerts = sorted(
            self._watch.state.alerts.values(), key=lambda one: (one.fired is None, -one.severity, one.id)
        )
        return {
            **self.status(),
            "alerts": [self._shown(alert, times) for alert in alerts],
            "silences": [
                asdict(one) | {"left_s": one.until - times.wall}
                for one in self._watch.silences
                if one.until > times.wall
            ],
        }

    def _shown(self, alert: Alert, times: Times) -> dict[str, Any]:
        group = self._watch.groups.get(alert.rule)
        text = TEXT[KINDS[alert.when].unit]
        return {
            "rule": alert.rule,
            "subject": alert.subject,
            "state": "waiting" if alert.fired is None else "firing",
            "severity": alert.severity.name.lower(),
            "since": times.wall - (times.now - alert.began),
            "fired": alert.fired,
            "value": text(alert.value),
            "peak": text(alert.peak),
            "what": alert.what,
            "tags": all_tags(alert),
            "silenced": self._watch.silent(alert),
            "told": group is not None and alert.subject in group.told,
        }

    async def rules(self) -> dict[str, Any]:
        """Raises StateError."""
        await self._watch.load()
        return {"rules": [_rule(entry) for entry in self._entries()]}

    async def add(self, actor: Actor, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Add a rule, or replace the one that was added under the name. Raises InvalidInput, NotFound for a
        limit that is not there, Conflict, StateError.
        """
        rule = made(name, {field: value for field, value in fields.items() if value is not None})
        if rule.kind.subject == "limit" and rule.which != ANY:
            known(self._core.world, rule.which)
        await self._watch.load()
        added = self._watch.added
        if any(name == one.name for one in self._core.settings.alerts.rules):
            raise Conflict(f"valkyrie.yaml has a rule {name}, which counts", "change it there and reload")
        if len(added) >= MAX_RULES and name not in {one.name for one in added}:
            raise Conflict(f"there are {MAX_RULES} rules already", "valkyrie-ctl alerts remove NAME")
        await self._audit(actor, "alert.add", name, rule.shown())
        await self._watch.change(lambda: self._watch.book.put_rule(rule))
        return next(_rule(entry) for entry in self._entries() if entry.rule.name == name)

    async def remove(self, actor: Actor, name: str) -> dict[str, Any]:
        """Remove a rule that was added. Raises NotFound, Conflict, StateError."""
        await self._watch.load()
        found = [entry for entry in self._entries() if entry.rule.name == name]
        if not found:
            raise NotFound(f"there is no rule {name[:80]!r}", "valkyrie-ctl alerts rules shows them")
        if all(entry.origin != "added" for entry in found):
            what = "stands in valkyrie.yaml" if found[0].origin == "file" else "is shipped"
            raise Conflict(
                f"rule {name} {what}",
                f"turn it off in valkyrie.yaml: alerts.rules: [{{name: {name}, when: {found[0].rule.when}, "
                "enabled: false}]; or silence it",
            )
        await self._audit(actor, "alert.remove", name, {})
        await self._watch.change(lambda: self._watch.book.drop_rule(name))
        return {"removed": name}

    async def silence(self, actor: Actor, match: str, lasting: str, why: str) -> dict[str, Any]:
        """Raises InvalidInput, Conflict, StateError."""
        checked_match(match)
        seconds = parse_seconds(lasting)
        if not 0 < seconds <= MAX_SILENCE_S:
            raise InvalidInput(f"a silence of {lasting[:40]} is out of range", "up to 90d, as 2h", "for")
        if len(why) > MOST_WHY or not (why or " ").isprintable():
            raise InvalidInput("why is too long or not printable", f"up to {MOST_WHY} characters", "why")
        await self._watch.load()
        wall = self._core.clock.wall()
        live = [one for one in self._watch.silences if one.until > wall]
        gone = [one.match for one in self._watch.silences if one.until <= wall]
        if len(live) >= MOST_SILENCES and match not in {one.match for one in live}:
            raise Conflict(
                f"there are {MOST_SILENCES} silences already", "valkyrie-ctl alerts unsilence MATCH"
            )
        made_one = Silence(match, wall + seconds, why, actor.user)
        await self._audit(actor, "alert.silence", match, {"for": lasting, "why": why})

        def work() -> None:
            self._watch.book.drop_silences(gone)
            self._watch.book.put_silence(made_one)

        await self._watch.change(work)
        covered = sum(made_one.covers(alert) for alert in self._watch.state.firing())
        return {**asdict(made_one), "left_s": seconds, "covers": covered}

    async def unsilence(self, actor: Actor, match: str) -> dict[str, Any]:
        """Raises NotFound, StateError."""
        await self._watch.load()
        wall = self._core.clock.wall()
        if not any(one.match == match and one.until > wall for one in self._watch.silences):
            raise NotFound(f"there is no silence of {match[:80]!r}", "valkyrie-ctl alerts list shows them")
        await self._audit(actor, "alert.unsilence", match, {})
        await self._watch.change(lambda: self._watch.book.drop_silences([match]))
        return {"unsilenced": match}

    async def history(self, count: int) -> dict[str, Any]:
        """The newest first. Raises StateError."""
        await self._watch.load()
        lines = await asyncio.to_thread(self._watch.book.history, count)
        return {"history": [asdict(line) for line in lines]}

    def test(self, name: str | None, fields: Mapping[str, Any]) -> dict[str, Any]:
        """What a rule would say now: of that name, or of these fields. Raises InvalidInput, NotFound."""
        rule = self._named(name) if name is not None else made("test", fields)
        readings = read(rule, self._watch.state.window)
        terms, text = rule.terms, TEXT[rule.kind.unit]
        (entry,) = judged([Entry(rule, "added")], self._core.world.limits, self._core.world.nics, None)
        return {
            **_rule(entry),
            "known": readings is not None,
            "above": text(terms.above),
            "for_s": terms.lasts,
            "readings": [
                {
                    "subject": one.subject,
                    "value": None if one.value is None else text(one.value),
                    "above": one.value is not None and one.value > terms.above,
                    "what": one.what(),
                }
                for one in sorted(readings or (), key=lambda one: -(one.value or 0.0))
            ],
        }

    def _named(self, name: str) -> Rule:
        for entry in self._entries():
            if entry.counts and entry.rule.name == name:
                return entry.rule
        raise NotFound(f"there is no rule {name[:80]!r}", "valkyrie-ctl alerts rules shows them")

    async def _audit(self, actor: Actor, action: str, target: str, detail: dict[str, Any]) -> None:
        # Before the change: what cannot be written down is not done.
        await self._core.in_turn(lambda: self._core.note(actor, action, target, detail))


def _rule(entry: Entry) -> dict[str, Any]:
    """A rule with all that it leaves to its kind."""
    rule, kind = entry.rule, entry.rule.kind
    return {
        "name": rule.name,
        "when": rule.when,
        "which": rule.event if kind.subject == "event" else rule.which if kind.subject else "",
        "above": rule.above or kind.above,
        "at_least": rule.at_least or kind.at_least,
        "for": rule.lasts or kind.lasts,
        "clear_below": rule.clear_below,
        "clear_after": rule.clear_after or kind.clear_after,
        "severity": rule.level.name.lower(),
        "tags": dict(rule.tags),
        "note": rule.note,
        "enabled": rule.enabled,
        "origin": entry.origin,
        "problem": entry.problem,
    }
