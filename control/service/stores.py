# SPDX-License-Identifier: Apache-2.0
"""The stores as the daemon sees them: the chain in the background, tried out and shown to people.

Nothing that is enforced waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from dataclasses import asdict
from typing import Any

from valkyrie.adapters.books import limit_of, not_declared
from valkyrie.adapters.check import check
from valkyrie.adapters.errors import StoreError, StoreUnavailable
from valkyrie.adapters.factory import Around, StoreFactory
from valkyrie.adapters.hybrid.events import ChainStatus, StoreEvent
from valkyrie.adapters.hybrid.manager import HybridStoreManager
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.naming import appliance_of
from valkyrie.adapters.secrets import Secrets
from valkyrie.adapters.settings import StoreSettings
from valkyrie.control.errors import InvalidInput
from valkyrie.control.finish import to_its_end
from valkyrie.control.notes import Tell
from valkyrie.control.service.core import Core
from valkyrie.control.service.world import World

log = logging.getLogger(__name__)

RETRY_S = 10.0  # after settings that a store refuses: a credential may come
DRAIN_S = 20.0  # calls under way may take before the stores of former settings are closed


class WorldBook:
    """The limits in force, as the adapters look them up."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._world: World | None = None
        self._made: dict[str, Limit] = {}

    async def limit(self, name: str) -> Limit:
        world = self._core.world
        if world is not self._world:
            self._world, self._made = world, {}
        if name not in world.limits:
            raise not_declared(name)
        if name not in self._made:
            uid = world.allotment.slots[name].uid
            made = await asyncio.to_thread(limit_of, world.limits[name], world.overrides_for(name), uid)
            if self._world is not world:
                return made
            self._made[name] = made
        return self._made[name]

    def forget(self, name: str) -> None:
        """Nothing: the world is always the one in force."""


class Stores:
    def __init__(self, core: Core, tell: Tell, secrets: Secrets) -> None:
        self._core = core
        self._tell = tell
        self._secrets = secrets
        self._settings = core.settings.store
        self._factory = StoreFactory()
        self._book = WorldBook(core)
        self._manager: HybridStoreManager | None = None
        self._problem = "starting"
        self._changed = asyncio.Event()
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        """Start the chain, again for each change of its settings; closes it in the end."""
        try:
            while True:
                self._changed.clear()
                wait = await self._start()
                try:
                    async with asyncio.timeout(wait):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        finally:
            if self._manager is not None:
                await self._manager.close()
                self._manager = None

    async def _start(self) -> float | None:
        """Put the chain of the settings in the place of the one before. Seconds until to try again."""
        settings = self._settings
        made = self._factory.chain(settings, self._around(settings), listener=self._heard)
        try:
            await made.start()
        except StoreError as error:
            if str(error) != self._problem:
                log.error("stores: %s", error)  # noqa: TRY400 - no bug, so no traceback
            self._problem = str(error)
            return RETRY_S
        except BaseException:
            await made.close()
            raise
        before, self._manager, self._problem = self._manager, made, ""
        if before is not None:
            try:
                async with asyncio.timeout(DRAIN_S):
                    await self._idle.wait()
            except TimeoutError:
                log.warning("calls to a store of the former settings are cut off")
            finally:
                await to_its_end(before.close())
        return None

    def _around(self, settings: StoreSettings) -> Around:
        appliance = appliance_of(settings.name, socket.gethostname())
        return Around(appliance, self._book, self._secrets, self._core.settings.pin_dir)

    def _heard(self, event: StoreEvent) -> None:
        self._tell("store", str(event))

    def reload(self, settings: StoreSettings) -> None:
        """Use these settings from now on; the stores of the former ones serve until these have started."""
        if settings != self._settings:
            self._settings = settings
            self._changed.set()

    def try_again(self) -> None:
        """A credential has come: settings that were refused without it may do."""
        if self._problem:
            self._problem = "starting"
            self._changed.set()

    def chain(self) -> tuple[ChainStatus | None, str]:
        """How the chain stands, None if it has not started; and what is wrong with it."""
        return (None if self._manager is None else self._manager.status()), self._problem

    def status(self) -> dict[str, Any]:
        """The chain, store by store. `problem` says why there is none, or why new settings are not used."""
        settings = self._settings
        found = None if self._manager is None else self._manager.status()
        answer: dict[str, Any] = {
            "name": appliance_of(settings.name, socket.gethostname()),
            "chain": list(settings.chain),
            "in_use": None,
            "when_all_fail": settings.when_all_fail,
            "problem": self._problem,
            "stores": [],
        }
        return answer if found is None else {**answer, **asdict(found), "stores": _shown(found.stores)}

    async def check(self) -> dict[str, Any]:
        """Each store of the chain tried out, all at once, with connections of its own."""
        settings = self._settings
        around = self._around(settings)
        names = settings.chain
        found = await asyncio.gather(
            *(check(lambda name=name: self._factory.create(name, settings, around)) for name in names)  # type: ignore[misc]
        )
        stores = [
            {
                "store": name,
                "ok": all(step.state != "fail" for step in steps),
                "steps": list(map(asdict, steps)),
            }
            for name, steps in zip(names, found, strict=True)
        ]
        return {"stores": stores}

    async def consume(
        self, key: str, n: int, limit: str | None, rate: str | None, burst: str | None
    ) -> dict[str, Any]:
        """Take tokens as an application would. Raises InvalidInput, NotFound, StoreError."""
        manager = self._manager
        if manager is None:
            raise StoreUnavailable(
                f"the stores have not started: {self._problem}", "valkyrie-ctl store check"
            )
        asked = limit_asked(limit, rate, burst)
        self._calls += 1
        self._idle.clear()
        try:
            began = time.perf_counter()
            decision = await manager.try_consume(key, n, limit=asked)
            took = (time.perf_counter() - began) * 1000
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()
        never = decision.retry_after == float("inf")
        return {**asdict(decision), "retry_after": None if never else decision.retry_after, "took_ms": took}

    async def call_limits(self, name: str, serial: int | None) -> dict[str, Any]:
        """A limit for callers of `try_consume`; without it if nothing changed since `serial`. NotFound."""
        world, now = self._core.world, self._core.serial
        if name not in world.limits:
            raise not_declared(name)
        if serial == now:
            return {"serial": now}
        declared = world.limits[name]
        overrides = await asyncio.to_thread(world.overrides_for, name)
        entry = {
            **declared.model_dump(),
            "uid": world.allotment.slots[name].uid,
            "overrides": [{"prefix": one.prefix, "rate": one.rate, "burst": one.burst} for one in overrides],
        }
        return {"serial": now, "limits": [entry]}


def limit_asked(limit: str | None, rate: str | None, burst: str | None) -> str | Limit:
    """The declared limit's name, or a limit of the caller's own. Raises InvalidInput."""
    if (limit is None) == (rate is None):
        raise InvalidInput("which limit?", "give a limit's name, or a rate", "limit")
    if limit is not None:
        if burst is not None:
            raise InvalidInput("a burst goes with a rate", "the limit has its own", "burst")
        return limit
    return Limit.of("store-consume", rate or "", burst)


def _shown(stores: Any) -> list[dict[str, Any]]:
    rows = []
    for one in stores:
        row = asdict(one)
        stats = row.pop("stats") or {"connections": 0, "operations": {}, "extra": {}}
        row |= {name: stats[name] for name in ("connections", "operations", "extra")}
        rows.append(row)
    return rows
