# SPDX-License-Identifier: Apache-2.0
"""A service over a real state and a data plane in memory, with a clock that tests move."""

from pathlib import Path
from typing import Any

from support.fake_engine import FakeEngine
from valkyrie.control.audit import Actor
from valkyrie.control.config import Settings
from valkyrie.control.service.clock import Clock
from valkyrie.control.service.service import Service
from valkyrie.control.state.store import State

ADMIN = Actor(0, "root", 42)
WEB = {"match": "proto tcp dport 80,443", "key": "src", "rate": "1000/s", "burst": "2000", "action": "drop"}


class Time:
    """Wall and boot time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.set_by = 0.0  # what somebody moved the wall clock

    def clock(self) -> Clock:
        return Clock(wall=lambda: self.now + self.set_by, mono_ns=lambda: int(self.now * 1e9))


class Bench:
    """A service that can be stopped hard and started again on the same state."""

    def __init__(self, folder: Path, *links: str) -> None:
        self.folder = folder
        self.time = Time()
        self.engine = FakeEngine(*links)
        self.settings = Settings(state_dir=folder, protect=("192.0.2.254",))
        self.service = self._make()

    def _make(self) -> Service:
        state = State.open(self.settings.database, bytes)
        return Service(self.settings, state, self.engine, self.time.clock())

    async def again(self) -> Service:
        """Another daemon on the same state and the same kernel."""
        await self.service.close()
        self.engine.fail.clear()
        self.service = self._make()
        await self.service.start()
        return self.service

    def stored(self) -> Any:
        return self.service.core.state.desired()
