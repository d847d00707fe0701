# SPDX-License-Identifier: Apache-2.0
"""A sync over a table in memory and a real store: rounds when a test wants them, or running by itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from support.fake_engine import FakeEngine
from support.table import Table, Tables
from valkyrie.adapters.secrets import NoSecrets
from valkyrie.adapters.settings import StoreSettings
from valkyrie.control import abi
from valkyrie.control.audit import DAEMON
from valkyrie.control.config import Settings
from valkyrie.control.document import from_document
from valkyrie.control.durable.opening import make_store
from valkyrie.control.service.clock import Clock
from valkyrie.control.service.core import Core
from valkyrie.control.state.store import State
from valkyrie.control.sync import Sync

UNITS = 1_000_000_000 << abi.TIME_SHIFT  # a second
WEB = {"name": "web", "key": "src", "rate": "1/h", "burst": "5"}
APPLIANCE = "edge"
DEADLINE = 15.0


class Appliance:
    """One daemon's part: state in `folder`, a table in memory. Its sync is not running until `running()`."""

    def __init__(
        self,
        folder: Path,
        store: StoreSettings,
        *,
        token: str = "a" * 32,
        unfilled: bool = False,
        sets: int = 64,
        interval: float = 0.1,
        per_second: int = 1_000_000,
        machine: str = "machine",
    ) -> None:
        folder.mkdir(exist_ok=True)
        settings = Settings.model_validate(
            {
                "state_dir": folder,
                "sync": {"interval_seconds": interval, "buckets_a_second": per_second},
                "store": store.model_copy(update={"name": APPLIANCE}),
            }
        )
        self.store_settings = settings.store
        self.table = Table(sets)
        self.tables = Tables(self.table, unfilled=unfilled)
        self.said: list[str] = []
        self.core = Core(settings, State.open(settings.database, bytes), FakeEngine(), Clock())
        self.sync = Sync(
            self.core,
            self.tables,
            lambda store, appliance: make_store(store, appliance, NoSecrets()),
            lambda kind, what: self.said.append(what),
            token=token,
            node=folder.name,
            machine=machine,
        )

    def make(self) -> Any:
        """One more adapter to the same store."""
        return make_store(self.store_settings, APPLIANCE, NoSecrets())

    async def start(self) -> None:
        """As the service does, without limits the first time."""
        await self.sync.prepare()
        await self.core.in_turn(self.core.start)
        await self.sync.refill()

    async def put_limits(self, *limits: dict[str, Any]) -> None:
        desired = from_document({"limits": list(limits)})
        await self.core.change(DAEMON, "apply", "", {}, lambda world: world.but(desired=desired))

    def uid(self, name: str = "web") -> int:
        return self.core.world.allotment.slots[name].uid

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The loop, as the daemon runs it; what it leaves undone is not made up for."""
        task = asyncio.create_task(self.sync.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def turn(self) -> None:
        """One turn of the loop."""
        await self.sync._guarded(self.sync._turn())

    @property
    def status(self) -> dict[str, Any]:
        return self.sync.status()

    async def until(self, holds: Callable[[], bool], seconds: float = DEADLINE) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, (self.status, self.said)
            await asyncio.sleep(0.01)

    async def rounds(self, count: int = 2) -> None:
        """Until so many more rounds are over."""
        wanted = int(self.status["rounds"]) + count
        await self.until(lambda: self.status["rounds"] >= wanted)

    async def kept(self) -> dict[str, int]:
        """Levels by name, as the store tells them."""
        found: dict[str, int] = {}
        store = self.make()
        await store.start()
        try:
            async for piece in store.buckets():
                found.update({one.name: one.level for one in piece})
        finally:
            await store.close()
        return found

    def use(self, places: range, seconds: float) -> None:
        """These places' buckets are so many seconds short of full from now on."""
        tat = (time.monotonic_ns() << abi.TIME_SHIFT) + round(seconds * UNITS)
        for place in places:
            self.table.set_tat(place, tat)

    async def close(self) -> None:
        await self.sync.close()
        await self.core.close()
