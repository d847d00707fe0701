# SPDX-License-Identifier: Apache-2.0
"""Where declared limits are looked up: given ones, the daemon's over its socket, those kept in a store.

An entry, as the API tells it (`GET /v1/call-limits`) and as the document of a policy has it:

    {"name", "key", "rate", "measure", "burst", "uid", "overrides": [{"prefix", "rate", "burst"}]}
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from valkyrie.adapters.durable import DurableStore
from valkyrie.adapters.errors import ConsistencyError, StoreError, StoreUnavailable
from valkyrie.adapters.limit import Limit, LimitBook
from valkyrie.adapters.overrides import Overrides
from valkyrie.adapters.unixhttp import ask
from valkyrie.control.document import checked
from valkyrie.control.errors import InvalidInput, NotFound, ValkyrieError
from valkyrie.control.limits import MEASURES, Desired, Override
from valkyrie.control.limits import Limit as Declared

log = logging.getLogger(__name__)

FRESH_S = 1.0  # how old what the daemon said may be; another look is then had behind the caller's back
OLD = 30  # times as old, and the caller waits for it
STORE_FRESH_S = 10.0
MOST_UNKNOWN = 1024  # names remembered as unknown, since names may come from outside
FIELDS = ("name", "match", "key", "rate", "measure", "burst", "action", "ban_for")


def limit_of(declared: Declared, overrides: Iterable[Override], uid: int = 0) -> Limit:
    """A declared limit as callers hold keys against it."""
    measure = MEASURES[declared.measure]
    spec = declared.key_spec
    entries = [(one.prefix, one.cost(measure)) for one in overrides]
    by_destination = spec.src4 is None and spec.dst4 is not None
    found = Overrides(entries, destination=by_destination) if entries else None
    return Limit(declared.name, declared.cost, declared=True, key=spec, uid=uid, overrides=found)


def limit_from(entry: Mapping[str, Any]) -> Limit:
    """A limit from an entry. Raises InvalidInput for one that is wrong."""
    fields = {name: entry[name] for name in FIELDS if entry.get(name) is not None}
    overrides = [
        checked(Override, {**one, "limit": fields.get("name", "")}) for one in entry.get("overrides", ())
    ]
    return limit_of(checked(Declared, fields), overrides, int(entry.get("uid", 0)))


def not_declared(name: str) -> NotFound:
    return NotFound(f"there is no limit {name[:80]!r}", "`valkyrie-ctl limits list` shows them")


class StaticBook:
    """Limits that are given once: `StaticBook([limit_from({"name": "web", ...})])`."""

    def __init__(self, limits: Iterable[Limit] = ()) -> None:
        self._limits = {limit.name: limit for limit in limits}

    async def limit(self, name: str) -> Limit:
        if name not in self._limits:
            raise not_declared(name)
        return self._limits[name]

    def forget(self, name: str) -> None:
        """Nothing: what was given is all that there is."""


class FirstBook:
    """Asks several books in order: the first that can be asked decides."""

    def __init__(self, books: Sequence[LimitBook]) -> None:
        self._books = tuple(books)

    async def limit(self, name: str) -> Limit:
        problem: StoreError = StoreUnavailable("there is no book of limits")
        for book in self._books:
            try:
                return await book.limit(name)
            except StoreError as error:
                problem = error
        raise problem

    def forget(self, name: str) -> None:
        for book in self._books:
            book.forget(name)


class _Cached(ABC):
    """Keeps what was looked up. What is old is used once more while a newer one is fetched; what cannot be
    fetched again stays good, since a daemon that restarts must not stop its callers.
    """

    def __init__(self, fresh_s: float, clock: Callable[[], float]) -> None:
        self._fresh_s = fresh_s
        self._clock = clock
        self._known: dict[str, tuple[Limit, float]] = {}
        self._unknown: dict[str, float] = {}
        self._fetching: dict[str, asyncio.Task[Limit]] = {}

    async def limit(self, name: str) -> Limit:
        found = self._known.get(name)
        now = self._clock()
        if found is not None:
            age = now - found[1]
            if age > self._fresh_s:
                task = self._fetch(name)
                if age > OLD * self._fresh_s:
                    with suppress(StoreError):
                        return await asyncio.shield(task)
            return found[0]
        if now - self._unknown.get(name, -self._fresh_s) < self._fresh_s:
            raise not_declared(name)
        return await asyncio.shield(self._fetch(name))

    def forget(self, name: str) -> None:
        self._known.pop(name, None)
        self._unknown.pop(name, None)

    @abstractmethod
    async def _look_up(self, name: str) -> Limit:
        """From where it is kept. Raises NotFound, StoreError."""

    def _fetch(self, name: str) -> asyncio.Task[Limit]:
        """One look at a time for a name."""
        if name not in self._fetching:
            task = asyncio.get_running_loop().create_task(self._fetched(name))
            self._fetching[name] = task
            task.add_done_callback(lambda done: self._ended(name, done))
        return self._fetching[name]

    async def _fetched(self, name: str) -> Limit:
        try:
            limit = await self._look_up(name)
        except NotFound:
            self._known.pop(name, None)
            if len(self._unknown) >= MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[name] = self._clock()
            raise
        self._known[name] = (limit, self._clock())
        self._unknown.pop(name, None)
        return limit

    def _ended(self, name: str, task: asyncio.Task[Limit]) -> None:
        self._fetching.pop(name, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and name in self._known:
            limit, _ = self._known[name]
            self._known[name] = (limit, self._clock())  # asked again after another while, not at every call
            log.warning("limit %s is used as it was last known: %s", name, error)


class ApiBook(_Cached):
    """The limits of the daemon on this host. Needs to be in the group that may look."""

    def __init__(
        self, socket: Path, *, fresh_s: float = FRESH_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(fresh_s, clock)
        self._socket = socket
        self._serials: dict[str, int] = {}

    async def _look_up(self, name: str) -> Limit:
        query: dict[str, object] = {"name": name}
        known = self._known.get(name)
        if known is not None:
            query["serial"] = self._serials[name]
        try:
            answer = await ask(self._socket, "/v1/call-limits", query)
        except NotFound:
            raise not_declared(name) from None
        except StoreError:
            raise
        except ValkyrieError as error:
            raise StoreUnavailable(
                f"the limits cannot be asked of valkyried: {error.what}", error.hint
            ) from error
        if "limits" not in answer and known is not None:
            return known[0]
        try:
            limit = limit_from(answer["limits"][0])
            serial = int(answer["serial"])
        except (InvalidInput, KeyError, IndexError, TypeError, ValueError) as error:
            raise ConsistencyError(
                f"valkyried tells limit {name} in a form that is not understood: {error}",
                "use the same version of Valkyrie on both sides",
            ) from error
        self._serials[name] = serial
        return limit


class StoreBook(_Cached):
    """The limits that the appliance keeps in a store: for applications on hosts without the daemon."""

    def __init__(
        self,
        store: Callable[[], DurableStore],
        *,
        fresh_s: float = STORE_FRESH_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`store` gives the store once it has started, and raises StoreError before."""
        super().__init__(fresh_s, clock)
        self._store = store
        self._raw: bytes | None = None
        self._desired = Desired()

    async def _look_up(self, name: str) -> Limit:
        raw = await self._store().get_document("state")
        if raw is None:
            raise StoreUnavailable(
                "the store holds no limits of this appliance", "has its daemon run with `sync.enabled`?"
            )
        if raw != self._raw:
            # Here, because only hosts without the daemon need it.
            from valkyrie.control.durable.document import read_state  # noqa: PLC0415

            self._desired = (await asyncio.to_thread(read_state, raw)).desired
            self._raw = raw
        declared = next((one for one in self._desired.limits if one.name == name), None)
        if declared is None:
            raise not_declared(name)
        overrides = [one for one in self._desired.overrides if one.limit == name]
        return await asyncio.to_thread(limit_of, declared, overrides)
