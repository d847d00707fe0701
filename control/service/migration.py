# SPDX-License-Identifier: Apache-2.0
"""The migration of the appliance from one store to another, as the daemon runs it: asked for by people, done
in the background, resumed after a crash where it was.

Callers of the stores follow its note by themselves (adapters/migrate/note.py), and the sync by core.route.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.durable import DurableStore
from valkyrie.adapters.factory import DURABLE, Around, StoreFactory
from valkyrie.adapters.migrate.migratable import whole
from valkyrie.adapters.migrate.note import DOCUMENT, Note, read_note
from valkyrie.adapters.migrate.plan import STEPS, Asked, Record, check_step, next_step
from valkyrie.adapters.naming import appliance_of
from valkyrie.adapters.secrets import Secrets
from valkyrie.adapters.store import StoreAdapter
from valkyrie.control.audit import Actor, entry
from valkyrie.control.durable.dual import Route
from valkyrie.control.durable.opening import backend_of
from valkyrie.control.errors import Conflict, InvalidInput, ValkyrieError
from valkyrie.control.notes import Tell
from valkyrie.control.service.core import Core
from valkyrie.control.service.migration_file import MigrationFile
from valkyrie.control.service.migration_steps import Steps

log = logging.getLogger(__name__)

RETRY_S = 1.0
POOL = 4
PROBE = "migration-probe"  # a document that tells whether two stores are one
PROBE_S = 60.0
ALIVE_S = 10.0  # after which a silent owner counts as gone


class Migration:
    """At most one at a time. `record` None: none."""

    def __init__(self, core: Core, secrets: Secrets, tell: Tell) -> None:
        self._core = core
        self._secrets = secrets
        self._tell = tell
        self._file = MigrationFile(core.settings.state_dir / "migration.json")
        self._record = self._file.load()
        if self._record is not None:
            self._record = replace(self._record, seen=False)  # who was away meanwhile must see it too
        self._follow()
        self._changed = asyncio.Event()
        self._starting = asyncio.Lock()
        self._steps: Steps | None = None
        self._problem = ""
        self._errors = 0
        self._ended = ""

    # What the daemon's other parts see.

    def _follow(self) -> None:
        """Have the sync write where the record says."""
        note, given = (
            (None if self._record is None else self._record.note),
            backend_of(self._core.settings.store),
        )
        self._core.migrating = note is not None
        if note is None:
            self._core.route = None
            return
        alone = note.phase in ("cleaning", "aborting")
        route = Route(note.primary, None if alone else note.secondary)
        self._core.route = None if route == Route(given, None) else route

    def _keep(self, record: Record | None) -> None:
        """Raises StateError; then all is as it was."""
        self._file.keep(record)
        before, self._record = self._record, record
        self._follow()
        if record is not None and (before is None or before.note != record.note):
            note = record.note
            text = f"migration from {note.source} to {note.target}: {note.phase}"
            log.info("%s", text)
            self._tell("store", text)

    # The work.

    async def run(self) -> None:
        """For ever: do what is to be done, and stop where a person decides."""
        while True:
            self._changed.clear()
            work = asyncio.create_task(self._work())
            waiting = asyncio.create_task(self._changed.wait())
            try:
                await asyncio.wait([work, waiting], return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    await work
                    await waiting
            finally:
                work.cancel()
                waiting.cancel()
                await asyncio.gather(work, waiting, return_exceptions=True)

    async def _work(self) -> None:
        while self._record is not None:
            steps = Steps(
                lambda: self._record, self._keep, self._adapter, self._core.settings.sync.buckets_a_second
            )
            self._steps = steps
            try:
                await steps.run()
                if steps.over:
                    self._ended = steps.over
                    log.info("%s", steps.over)
                    self._tell("store", steps.over)
                self._problem = ""
                return
            except ValkyrieError as error:
                self._errors += 1
                if str(error) != self._problem:
                    log.warning("the migration waits: %s", error)
                self._problem = str(error)
                await asyncio.sleep(RETRY_S)
            finally:
                await steps.close()

    def _adapter(self, backend: str) -> StoreAdapter:
        """A store of the settings, with few connections of its own, not started."""
        settings = self._core.settings.store
        small = {"pool_size": POOL, "coalesce": False}
        own = settings.model_copy(
            update={
                "redis": settings.redis.model_copy(update=small),
                "valkey": settings.valkey.model_copy(update=small),
            }
        )
        appliance = appliance_of(settings.name, socket.gethostname())
        return StoreFactory().create(backend, own, Around(appliance, StaticBook(), self._secrets, Path()))

    # What people ask for.

    async def start(self, actor: Actor, source: str, target: str, *, overwrite: bool) -> dict[str, Any]:
        """Check both stores, and begin. Raises Conflict, InvalidInput, StoreError."""
        async with self._starting:
            record = self._record
            if record is not None and (record.note.source, record.note.target) == (source, target):
                return self.status()
            if record is not None:
                note = record.note
                raise Conflict(
                    f"{note.source} is being migrated to {note.target}",
                    f"`{STEPS} status` shows how far it is",
                )
            self._check_role()
            self._check_names(source, target)
            async with self._opened(source) as first, self._opened(target) as second:
                epoch = await self._check_stores(first, second, overwrite=overwrite)
            self._core.migrating = True  # from here on it can become no follower: see standby.follow
            try:
                await self._audit(actor, "store-migrate-start", {"source": source, "target": target})
                self._check_role()  # it may have become a follower meanwhile
                made = Note(max(epoch + 1, time.time_ns() // 1_000_000), 1, source, target, "copying")
                self._begin(Record(made, emptied=not overwrite))
            finally:
                self._follow()
            return self.status()

    def _check_role(self) -> None:
        """Raises Conflict for a follower: it writes nothing to the stores, whose state is another's."""
        role = self._core.role
        if role.follows:
            raise Conflict(
                f"this appliance follows {role.name}",
                "migrate on the one that is active, or take over first: valkyrie-ctl standby take-over",
            )

    def _check_names(self, source: str, target: str) -> None:
        used = backend_of(self._core.settings.store)
        if source != used:
            raise InvalidInput(
                f"{source[:20]} is not the store in use", f"it is {used}: name that one", "source"
            )
        if target not in DURABLE or target == source:
            others = ", ".join(name for name in DURABLE if name != source)
            raise InvalidInput(f"cannot migrate to {target[:20]}", f"one of {others}", "target")

    async def _check_stores(self, source: StoreAdapter, target: StoreAdapter, *, overwrite: bool) -> int:
        """The epoch of the last migration that either knows."""
        first, second = whole(source).side(), whole(target).side()
        await second.put_document(PROBE, b"1")
        try:
            if await first.document(PROBE) is not None:
                raise InvalidInput(
                    "source and target are the same server", "give them URLs of their own", "target"
                )
        finally:
            await second.drop_document(PROBE)
        notes = [read_note(await side.document(DOCUMENT)) for side in (first, second)]
        if notes[0] is not None:
            raise Conflict(
                f"a migration to {notes[0].target} is noted in {notes[0].source}, and not known here",
                f"another host may run it; `{STEPS} abort --force` goes back to {notes[0].source}",
            )
        owner = await cast("DurableStore", target).owner()
        if owner is not None and owner.silent_s < ALIVE_S:
            raise Conflict(f"{owner.node} keeps its state in the target under this name", "stop it first")
        there = await second.count() + len(await second.documents())
        if there and not overwrite:
            raise Conflict(
                f"the target holds {there} keys of this appliance already", "give --overwrite to delete them"
            )
        return max((note.epoch for note in notes if note is not None), default=0)

    @contextlib.asynccontextmanager
    async def _opened(self, backend: str) -> AsyncIterator[StoreAdapter]:
        adapter = self._adapter(backend)
        async with adapter:
            yield adapter

    async def ask(self, actor: Actor, asked: Asked, *, force: bool = False) -> dict[str, Any]:
        """Do a step, in the background; nothing if it is done. Raises Conflict naming the right one."""
        async with self._starting:
            if self._record is None and asked == "abort" and force:
                await self._find_lost()
            record, given = self._record, backend_of(self._core.settings.store)
            if _done(record, asked):
                return self.status()
            check_step(record, asked, force=force, primary=given, now=time.time())
            assert record is not None
            await self._audit(actor, f"store-migrate-{asked}", {"force": force})
            record = self._record  # it may have gone on meanwhile
            if record is not None:
                self._begin(
                    replace(record, asked=asked, force=force, done=0 if record.copied else record.done)
                )
            return self.status()

    def _begin(self, record: Record) -> None:
        self._keep(record)
        self._ended = ""
        self._changed.set()

    async def _find_lost(self) -> None:
        """A migration of which only the source's note is left."""
        given = backend_of(self._core.settings.store)
        async with self._opened(given) as adapter:
            note = read_note(await whole(adapter).side().document(DOCUMENT))
        if note is not None:
            self._keep(Record(note, copied=True, seen=True))

    async def _audit(self, actor: Actor, action: str, detail: dict[str, Any]) -> None:
        core = self._core

        def work() -> None:
            with core.state.transaction() as transaction:
                written = entry(core.clock.wall(), actor, action, "", detail)
                transaction.audit(written, core.settings.audit.keep)

        await core.in_turn(work)

    def status(self) -> dict[str, Any]:
        """`phase` is `none` when there is no migration; `doing` says what is under way, `next` what a person
        does then, `change` which lines of the settings to change.
        """
        record, steps = self._record, self._steps
        answer: dict[str, Any] = {
            "phase": "none", "source": None, "target": None, "doing": "", "asked": "", "percent": 0.0,
            "done": 0, "total": 0, "keys_a_second": 0.0, "errors": self._errors, "problem": self._problem,
            "report": None, "compared": None, "next": "", "change": [], "ended": self._ended,
        }  # fmt: skip
        if record is None:
            return answer
        note = record.note
        figures = steps.figures() if steps is not None else {}
        return answer | figures | {
            "phase": note.phase, "source": note.source, "target": note.target, "asked": record.asked,
            "report": record.report, "compared": record.compared or None, "next": next_step(record),
            "change": self._change(note),
        }  # fmt: skip

    def _change(self, note: Note) -> list[str]:
        """Lines of valkyrie.yaml, while they name another store than the one in use."""
        settings = self._core.settings.store
        if note.phase not in ("cutover", "cleaning") or backend_of(settings) == note.target:
            return []
        chain = [note.target if name == note.source else name for name in settings.chain]
        chain = list(dict.fromkeys(chain)) or [note.target]
        return ["store:", f"  mode: {chain[0]}", f"  fallback_chain: [{', '.join(chain)}]"]


def _done(record: Record | None, asked: Asked) -> bool:
    """Whether what is asked for has happened."""
    return record is not None and asked == "cutover" and record.note.phase == "cutover" and not record.asked
