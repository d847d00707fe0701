# SPDX-License-Identifier: Apache-2.0
"""Messages in, deliveries out: routes, queues and one worker an adapter."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valkyrie.adapters.notify.factory import make_sender
from valkyrie.adapters.notify.message import Message, NotifyError, Severity
from valkyrie.adapters.notify.settings import MAX_ADAPTERS, NotifySettings, Route
from valkyrie.adapters.notify.text import bounded
from valkyrie.adapters.secrets import Secrets
from valkyrie.control.errors import Conflict, NotFound, StateError, Unavailable
from valkyrie.control.notes import Tell
from valkyrie.control.notify import added as at_run_time
from valkyrie.control.notify.added import Added
from valkyrie.control.notify.book import Book
from valkyrie.control.notify.brief import condensed
from valkyrie.control.notify.commands import Commander, Judge, Operation
from valkyrie.control.notify.journal import Journal
from valkyrie.control.notify.routes import routes_of, targets
from valkyrie.control.notify.worker import Pace, Worker

if TYPE_CHECKING:
    from valkyrie.adapters.notify.kinds import AdapterBase
    from valkyrie.adapters.notify.sender import Sender

log = logging.getLogger(__name__)

MOST_EARLY = 1000  # messages from before the queue is open
SHOWN_DEAD = 20
READY_S = 5.0


@dataclass(frozen=True)
class Surroundings:
    """What the dispatcher needs of the daemon."""

    folder: Path
    secrets: Secrets
    node: str
    wall: Callable[[], float] = time.time
    tell: Tell = lambda kind, what: None
    pace: Pace = field(default_factory=Pace)


@dataclass
class _Running:
    settings: AdapterBase
    give_up_s: float
    worker: Worker
    task: asyncio.Task[None]
    commander: Commander | None


class Dispatcher:
    """Use from the event loop alone. `run` works until cancelled; `submit` may be called before."""

    def __init__(self, settings: NotifySettings, around: Surroundings) -> None:
        self.operations: Mapping[str, Operation] = {}
        self._settings = settings
        self._around = around
        self._book = Book(Journal(around.folder), settings.queue_messages, around.wall)
        self._added: dict[str, Added] = {}
        self._problem = ""
        self._running: dict[str, _Running] = {}
        self._early: deque[tuple[Message, asyncio.Future[bool]]] = deque()
        self._open = False
        self._unrouted = 0
        self._lost_early = 0
        self._changing = asyncio.Lock()
        self._judge = Judge(around.node, around.wall())

    async def run(self) -> None:
        """Open the queue and deliver; on the way out, within 2 s, tell the services goodbye."""
        try:
            await self._start()
            await asyncio.get_running_loop().create_future()
        finally:
            await self._stop()

    async def _start(self) -> None:
        try:
            self._added = await asyncio.to_thread(at_run_time.load, self._around.folder)
        except StateError as error:
            self._problem = str(error)
            log.error("%s", error)  # noqa: TRY400 - no bug, so no traceback
        await self._book.open()
        async with self._changing:
            await self._settle()
        self._open = True
        while self._early:
            message, future = self._early.popleft()
            self._take(message, future)

    async def _stop(self) -> None:
        self._open = False
        running, self._running = list(self._running.values()), {}
        for one in running:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in running), return_exceptions=True)
        await self._book.close()
        # Started again after a failure, it begins with what is on the disk.
        around = self._around
        self._book = Book(Journal(around.folder), self._settings.queue_messages, around.wall)

    def submit(self, message: Message) -> asyncio.Future[bool]:
        """Take a message; returns at once. The future is done when it is on the disk: False if it cannot be
        written, and is in memory alone.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._open:
            self._take(bounded(message), future)
            return future
        if len(self._early) >= MOST_EARLY:
            _, lost = self._early.popleft()
            self._lost_early += 1
            if not lost.done():
                lost.set_result(False)
        self._early.append((bounded(message), future))
        return future

    def _take(self, message: Message, future: asyncio.Future[bool]) -> None:
        names = targets(message, self.routes)
        if not names:
            self._unrouted += 1
        for name in names:
            self._book.add(name, message, self._around.wall())
            if name in self._running:
                self._running[name].worker.wake.set()

        def saved(done: asyncio.Future[bool]) -> None:
            if not future.done():
                future.set_result(not done.cancelled() and done.result())

        self._book.saved().add_done_callback(saved)

    @property
    def routes(self) -> tuple[Route, ...]:
        own = (one.route for name, one in self._added.items() if name not in self._settings.adapters)
        return (*routes_of(self._settings), *own)

    @property
    def adapters(self) -> dict[str, AdapterBase]:
        """All of them; those of the settings come before those of the same name that were added."""
        return {**{name: one.settings for name, one in self._added.items()}, **self._settings.adapters}

    async def _settle(self) -> None:
        """Have the workers be those of the settings; what waits for an adapter that is no more is buried."""
        wanted = self.adapters
        for name, one in list(self._running.items()):
            same = wanted.get(name) == one.settings and one.give_up_s == self._settings.give_up_seconds
            if not same:
                del self._running[name]
                one.task.cancel()
                await asyncio.gather(one.task, return_exceptions=True)
        for name, settings in wanted.items():
            if name not in self._running:
                self._running[name] = self._worker(name, settings)
        for name, backlog in list(self._book.backlogs.items()):
            if name not in wanted:
                for entry in backlog.entries:
                    self._book.bury(entry, "there is no such adapter any more", self._around.wall())

    def _worker(self, name: str, settings: AdapterBase) -> _Running:
        around = self._around
        commander = None
        command_credential = getattr(settings, "command_credential", None)
        if command_credential is not None:
            commander = self._commander(name, command_credential)

        def make() -> Sender[Any]:
            made = make_sender(name, settings, around.secrets, around.node)
            if commander is not None:
                made.commander = commander  # type: ignore[attr-defined]
            return made

        give_up = self._settings.give_up_seconds
        worker = Worker(
            name,
            make,
            self._book,
            around.wall,
            around.tell,
            give_up_s=give_up,
            timeout_s=settings.timeout_seconds,
            pace=around.pace,
        )
        task = asyncio.get_running_loop().create_task(worker.run())
        return _Running(settings, give_up, worker, task, commander)

    def _commander(self, name: str, credential: str) -> Commander:
        from valkyrie.adapters.notify.sender import Revealed  # noqa: PLC0415

        around = self._around
        keys = Revealed(around.secrets)
        return Commander(name, self._judge, lambda: keys.key(credential), self.operations, around.wall)

    async def reload(self, settings: NotifySettings) -> None:
        """Work by these settings from now on; what waits stays."""
        async with self._changing:
            self._settings = settings
            self._book.resize(settings.queue_messages)
            if self._open:
                await self._settle()

    async def add(
        self, name: str, fields: dict[str, Any], severity: str, tags: dict[str, str]
    ) -> dict[str, Any]:
        """Add an adapter, or replace one that was added. Raises InvalidInput, Conflict, StateError."""
        from valkyrie.adapters.notify.kinds import checked_adapter  # noqa: PLC0415 - see there

        made = Added(checked_adapter(fields), at_run_time.checked_route(name, severity, tags))
        async with self._changing:
            self._changeable(name)
            if name not in self.adapters and len(self.adapters) >= MAX_ADAPTERS:
                raise Conflict(f"there are {MAX_ADAPTERS} adapters already", "remove one first")
            await self._keep({**self._added, name: made})
        return self._shown(name, made.settings)

    async def remove(self, name: str) -> dict[str, Any]:
        """Remove an adapter that was added, with what waits for it. Raises NotFound, Conflict, StateError."""
        async with self._changing:
            self._changeable(name)
            if name not in self._added:
                raise self._unknown(name)
            waiting = len(self._book.backlog(name))
            await self._keep({other: one for other, one in self._added.items() if other != name})
            self._book.forget(name)
        return {"removed": name, "dropped": waiting}

    def _changeable(self, name: str) -> None:
        if name in self._settings.adapters:
            raise Conflict(f"{name} stands in valkyrie.yaml", "change it there, and reload")
        if self._problem:
            raise Conflict(f"adapters cannot be changed: {self._problem}", "mend that, and restart valkyried")
        if not self._open:
            raise Unavailable("notifications have not started yet", "try again")

    async def _keep(self, added: dict[str, Added]) -> None:
        await asyncio.to_thread(at_run_time.save, self._around.folder, added)
        self._added = added
        await self._settle()

    async def retry(self, name: str) -> dict[str, Any]:
        """Try everything that waits or is dead now. Raises NotFound."""
        one = self._known(name)
        revived = self._book.revive(name, self._around.wall())
        self._book.backlog(name).unhold()
        one.worker.wake.set()
        one.worker.hurry.set()
        return {"name": name, "revived": revived, "queued": len(self._book.backlog(name))}

    async def test(self, name: str) -> dict[str, Any]:
        """Send a note past the queue, and say what the service answered. Raises NotFound."""
        one = self._known(name)
        title = "Test of notifications"
        body = f"This is a test of {name}, asked for by `valkyrie-ctl notify test {name}`."
        now = self._around.wall()
        message = Message(title, body, Severity.INFO, now, f"test/{name}", "note", {"adapter": name})
        began = time.perf_counter()
        answer: dict[str, Any] = {
            "name": name,
            "ok": True,
            "permanent": False,
            "retry_after": None,
            "hint": "",
        }
        try:
            async with asyncio.timeout(READY_S):
                sender = await asyncio.shield(one.worker.ready)
            answer["answer"] = await one.worker.attempt(sender, message)
        except NotifyError as error:
            answer |= {"ok": False, "answer": error.what, "hint": error.hint}
            answer |= {"permanent": error.permanent, "retry_after": error.retry_after}
        except TimeoutError:
            answer |= {"ok": False, "answer": f"the adapter did not start: {one.worker.standing.last_error}"}
        return {**answer, "took_ms": (time.perf_counter() - began) * 1000}

    def _known(self, name: str) -> _Running:
        if name not in self._running:
            raise self._unknown(name)
        return self._running[name]

    def _unknown(self, name: str) -> NotFound:
        there = ", ".join(self.adapters) or "none"
        return NotFound(f"there is no adapter {name[:40]!r}", f"there: {there}")

    def status(self) -> dict[str, Any]:
        """For people and programs; no secrets, for the settings hold none."""
        from valkyrie.adapters.notify.kinds import KINDS, words_of  # noqa: PLC0415 - see there

        return {
            "node": self._around.node,
            "adapters": [self._shown(name, one) for name, one in self.adapters.items()],
            "dead": self._dead(),
            "unrouted": self._unrouted,
            "lost_before_start": self._lost_early,
            "queue": self._book.status(),
            "problem": self._problem,
            "kinds": {kind: words_of(model) for kind, model in KINDS.items()},
        }

    def brief(self) -> dict[str, Any]:
        """What everybody who looks at the appliance should see."""
        shown = [self._shown(name, one) for name, one in self.adapters.items()]
        problems = (self._problem, self._book.problem)
        return condensed(shown, self._unrouted + self._lost_early, problems)

    def _dead(self) -> list[dict[str, Any]]:
        """The newest of each adapter."""
        return [
            {
                "adapter": name,
                "title": one.entry.message.title,
                "severity": one.entry.message.severity.name.lower(),
                "state": one.entry.message.state,
                "queued": one.entry.queued,
                "died": one.died,
                "why": one.why,
            }
            for name, graves in self._book.dead.items()
            for one in graves[-SHOWN_DEAD:]
        ]

    def _shown(self, name: str, settings: AdapterBase) -> dict[str, Any]:
        running = self._running.get(name)
        counts = self._book.counts_of(name)
        standing = vars(running.worker.standing) if running is not None else {"state": "starting"}
        more: dict[str, Any] = {}
        if running is not None and running.worker.ready.done() and not running.worker.ready.cancelled():
            more = running.worker.ready.result().status()
        if running is not None and running.commander is not None:
            more = {**more, "commands": running.commander.status()}
        return {
            "name": name,
            "kind": settings.kind,  # type: ignore[attr-defined]
            "from": "settings" if name in self._settings.adapters else "cli",
            "settings": settings.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"kind"}),
            "routes": [
                {"severity": route.severity, "tags": dict(route.tags)}
                for route in self.routes
                if name in route.to
            ],
            "queued": len(self._book.backlog(name)),
            "dropped": counts.dropped,
            "dead": len(self._book.dead.get(name, ())),
            "forgotten": counts.forgotten,
            **standing,
            "more": more,
        }
