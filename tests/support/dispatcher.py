# SPDX-License-Identifier: Apache-2.0
"""A dispatcher of notifications that repeats quickly, over webhooks, and what it shows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from support.fake_http import FakeHttp, answer
from support.notes import SECRET, until
from valkyrie.adapters.notify.settings import NotifySettings
from valkyrie.adapters.secrets import StaticSecrets
from valkyrie.control.notify.dispatcher import Dispatcher, Surroundings
from valkyrie.control.notify.worker import Pace

QUICK = Pace(attempts=3, round_s=5.0, first_s=0.01, most_s=0.02, jitter_s=0.0, hold_s=0.05, hold_most_s=0.1)
OK = answer(200)


def settings(routes: Any = (), **urls: str) -> NotifySettings:
    adapters = {name: {"kind": "webhook", "url": url, "timeout_seconds": 1.0} for name, url in urls.items()}
    return NotifySettings.model_validate({"adapters": adapters, "routes": routes})


@contextlib.asynccontextmanager
async def dispatcher(folder: Path, given: NotifySettings, **more: Any) -> AsyncIterator[Dispatcher]:
    around = Surroundings(folder, StaticSecrets({"it": SECRET}), "edge-1", pace=QUICK, **more)
    made = Dispatcher(given, around)
    task = asyncio.ensure_future(made.run())
    try:
        await until(lambda: made._open, "open")
        yield made
    finally:
        task.cancel()
        began = time.monotonic()
        await asyncio.gather(task, return_exceptions=True)
        assert time.monotonic() - began < 2.5


def titles(server: FakeHttp) -> list[str]:
    return [json.loads(request.body)["title"] for request in server.requests]


def shown(made: Dispatcher, name: str) -> dict[str, Any]:
    return next(one for one in made.status()["adapters"] if one["name"] == name)
