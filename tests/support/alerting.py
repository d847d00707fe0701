# SPDX-License-Identifier: Apache-2.0
"""Alerts of a bench's service: who takes their messages, a rule, and the flood that makes it fire."""

from __future__ import annotations

import asyncio
from typing import Any

from support.workbench import ADMIN, WEB, Bench
from valkyrie.adapters.notify.message import Message
from valkyrie.control.alerts.settings import AlertSettings
from valkyrie.control.service.service import Service

NOW = AlertSettings(shipped=False, group_wait="0s", history=100)
DROPS = {"when": "drop-rate", "limit": "web", "above": "100/s", "for": "0s", "clear_after": "2s"}


class Told:
    """Takes messages as the dispatcher does, or refuses."""

    def __init__(self, service: Service) -> None:
        self.messages: list[Message] = []
        self.refuse: Exception | None = None
        self.answer: bool | None = True
        service.alerts.submit_to(self.submit)

    def submit(self, message: Message) -> asyncio.Future[bool]:
        if self.refuse is not None:
            raise self.refuse
        self.messages.append(message)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self.answer is not None:
            future.set_result(self.answer)
        return future

    def states(self) -> list[str]:
        return [message.state for message in self.messages]


def use(bench: Bench, **settings: Any) -> Told:
    alerts = NOW.model_copy(update=settings)
    bench.settings = bench.settings.model_copy(update={"alerts": alerts})
    bench.service.core.use(bench.settings)
    return Told(bench.service)


async def flood(bench: Bench, seconds: int, per_second: int = 500) -> None:
    """A look each second while `web` drops."""
    slot = bench.service.core.world.allotment.slots["web"].slot
    for _ in range(seconds):
        bench.engine.counters[slot]["matched"] += 2 * per_second
        bench.engine.counters[slot]["dropped"] += per_second
        bench.time.now += 1
        await bench.service.alerts.look()


async def flooded(bench: Bench) -> Told:
    """With a rule, and the flood that makes it fire."""
    told = use(bench)
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.alerts.add(ADMIN, "web-drops", DROPS)
    await flood(bench, 3)
    return told
