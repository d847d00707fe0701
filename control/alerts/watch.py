# SPDX-License-Identifier: Apache-2.0
"""The alerts of a running daemon: a look each second, and what it leads to. I/O around the pure engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from valkyrie.control.alerts.book import Book, Line, line_of
from valkyrie.control.alerts.engine import Alert, State, Transition, step
from valkyrie.control.alerts.groups import Group, Terms, tell
from valkyrie.control.alerts.kept import Kept, kept_in, text_of
from valkyrie.control.alerts.notices import Tally
from valkyrie.control.alerts.outbox import Outbox
from valkyrie.control.alerts.rules import Rule
from valkyrie.control.alerts.settings import AlertSettings
from valkyrie.control.alerts.sight import Sight
from valkyrie.control.alerts.silences import Silence, silenced
from valkyrie.control.errors import StateError, ValkyrieError
from valkyrie.control.notes import Tell

log = logging.getLogger(__name__)

LOOK_S = 1.0
SIGHT_S = 5.0  # that a look at the appliance may take; what it would tell is unknown then
TAKEN_S = 0.5  # that a look waits for its messages to be on the disk, so that none goes twice
END_S = 1.0  # for the last write, at shutdown
MOST_TOLD = 20  # notes of one look to those who follow the events
MOST_UNWRITTEN = 1000  # lines of the history that wait for a disk that is full

Look = Callable[[str], Awaitable[Sight]]


@dataclass(frozen=True, slots=True)
class Times:
    """`now` of a clock that nobody sets, `wall` for people; both in seconds."""

    now: float
    wall: float


class Watch:
    """`look(restarted)` takes a sight; `told(kind, what)` shows a note to those who follow the events."""

    def __init__(
        self,
        book: Book,
        outbox: Outbox,
        look: Look,
        told: Tell,
        times: Callable[[], Times],
        node: str,
    ) -> None:
        self.book = book
        self.outbox = outbox
        self.tally = Tally()
        self.state = State()
        self.silences: list[Silence] = []
        self.added: list[Rule] = []
        self.problem = ""
        self.sight: Sight | None = None
        self._look = look
        self._told = told
        self._times = times
        self._node = node
        self._groups: Mapping[str, Group] = {}
        self._unwritten: list[Line] = []
        self._loaded = False
        self._restarted = ""
        self._dirty = False
        self._turn = asyncio.Lock()

    @property
    def groups(self) -> Mapping[str, Group]:
        return self._groups

    def silent(self, alert: Alert) -> bool:
        return silenced(alert, self.silences, self._times().wall)

    async def load(self) -> None:
        """What the book has, if that was not read yet. Raises StateError."""
        async with self._turn:
            if not self._loaded:
                await self._read()

    async def ready(self) -> None:
        """Read the book if it can be read: rules are to be known before their alerts are judged."""
        try:
            await self.load()
        except StateError as error:
            self._complain(error)

    async def _read(self) -> None:
        def work() -> tuple[str | None, list[Rule], list[Silence]]:
            return self.book.kept(), self.book.rules(), self.book.silences()

        text, self.added, self.silences = await asyncio.to_thread(work)
        self._loaded = self._dirty = True
        if text is None:
            return
        times = self._times()
        try:
            kept, waiting = kept_in(text, times.now, times.wall)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("which alerts fired before is not understood: %r", error)  # noqa: TRY400 - no bug
            kept, waiting = Kept(), []
        self.state = replace(self.state, alerts={**kept.alerts, **self.state.alerts})
        self._groups = {**kept.groups, **self._groups}
        self.outbox.put(waiting, again=True)
        self._restarted = (
            "the one before ended in order"
            if kept.ended
            else "the one before ended without a word: killed, crashed, or its power was cut"
        )

    async def once(self, rules: list[Rule], settings: AlertSettings) -> None:
        """One look, with what it leads to; ready() comes before. Raises nothing of the project."""
        sight = await self._seen()
        times = self._times()
        self.state, changes = step(rules, self.state, sight, self.tally.take(), times.now)
        terms = Terms(settings.group_wait_s, settings.repeat_s, settings.most_an_hour, self._node)
        groups, messages = tell(
            self._groups, self.state.firing(), changes, self.silent, terms, times.now, times.wall
        )
        self._publish(changes)
        try:
            self.outbox.put(messages)
            self._dirty |= bool(changes)
            if messages:
                # First: a daemon that is killed while it tells must know under which key, or nobody ends it.
                self._dirty = True
                await self._write(settings, groups, ended=False)
            waited = len(self.outbox.waiting())
            await self.outbox.push(TAKEN_S)
            self._dirty |= waited != len(self.outbox.waiting())
            await self._write(settings, groups, ended=False)
        finally:
            # Last: who is said to be told is so after a kill as well.
            self._groups = groups

    async def _seen(self) -> Sight:
        restarted, self._restarted = self._restarted, ""
        try:
            async with asyncio.timeout(SIGHT_S):
                sight = await self._look(restarted)
        except (TimeoutError, ValkyrieError, OSError) as error:
            log.warning("alerts could not look at the appliance: %r", error)
            sight = Sight(self._times().wall, restarted=restarted)
        self.sight = sight
        return sight

    def _publish(self, changes: tuple[Transition, ...]) -> None:
        for change in changes:
            self._unwritten.append(line_of(change, silenced=self.silent(change.alert)))
        for change in changes[:MOST_TOLD]:
            alert = change.alert
            why = f" ({change.why})" if change.why else ""
            self._told("alert", f"{alert.rule} {change.change}{why}: {alert.what}")
        if len(changes) > MOST_TOLD:
            self._told("alert", f"and {len(changes) - MOST_TOLD} more alerts changed")
        del self._unwritten[:-MOST_UNWRITTEN]

    async def _write(self, settings: AlertSettings, groups: Mapping[str, Group], *, ended: bool) -> None:
        if not (self._loaded and self._dirty):
            return
        times, lines = self._times(), tuple(self._unwritten)
        kept = Kept(self.state.alerts, groups, ended)
        text = text_of(kept, self.outbox.waiting(), times.now, times.wall)
        try:
            async with self._turn:
                await asyncio.to_thread(self.book.write, text, lines, settings.history)
        except StateError as error:
            self._complain(error)
            return
        del self._unwritten[: len(lines)]
        self._dirty, self.problem = False, ""

    def _complain(self, error: StateError) -> None:
        if str(error) != self.problem:
            log.error("%s", error)
        self.problem = str(error)

    async def change(self, work: Callable[[], Any]) -> None:
        """Change the book by `work`, in a thread, then have silences and rules as it has them."""
        await self.load()

        def both() -> tuple[list[Rule], list[Silence]]:
            work()
            return self.book.rules(), self.book.silences()

        async with self._turn:
            self.added, self.silences = await asyncio.to_thread(both)

    async def close(self, settings: AlertSettings) -> None:
        """The last write, END_S at most."""
        if self._loaded:
            self._dirty = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await self._write(settings, self._groups, ended=True)
        await asyncio.to_thread(self.book.close)
