# SPDX-License-Identifier: Apache-2.0
"""Two servers, a daemon's part that can be killed, and applications that use the stores meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from support.servers import Server
from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.factory import Around, StoreFactory
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.migrate.migratable import whole
from valkyrie.adapters.migrate.side import Side, Value
from valkyrie.adapters.naming import bucket_of
from valkyrie.adapters.secrets import NoSecrets
from valkyrie.control.config import Settings

APPLIANCE = "edge"
FOREIGN = ("other:1", "vk:{edge-2}:kv:a", "vk:{edge.7}:claim", "vk:{edge.7}:doc:state", "vk:{edge.16}:b:x:00")
UNITS_A_S = 64_000_000_000
DEADLINE = 60.0
OWN = Limit.of("own", "1/h", "10")


def settings_of(folder: Path, redis: Server, valkey: Server, mode: str = "redis", **more: Any) -> Path:
    """Written to a file."""
    path = folder / "settings.json"
    document = {
        "state_dir": str(folder / "state"),
        "store": {
            "name": APPLIANCE,
            "mode": mode,
            "redis": {"url": redis.url.replace("valkey:", "redis:"), "timeout_ms": 1000},
            "valkey": {"url": valkey.url, "timeout_ms": 1000},
            **more,
        },
        "sync": {"interval_seconds": 0.5, "buckets_a_second": 20_000},
    }
    (folder / "state").mkdir(exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def _spawn(module: str, *args: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, "-m", module, *args],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


class Daemon:
    def __init__(self, settings: Path) -> None:
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = _spawn("support.migrating_daemon", str(self._settings))

    def kill(self) -> None:
        """As kill -9. Again: nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def ask(self, *step: str) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(step) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def good(self, *step: str) -> dict[str, Any]:
        answer = self.ask(*step)
        assert "refused" not in answer, answer
        return answer

    def until(self, holds: Callable[[dict[str, Any]], bool], seconds: float = DEADLINE) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while not holds(answer := self.ask("status")):
            assert time.monotonic() < deadline, answer
            time.sleep(0.02)
        return answer

    def until_next(self, step: str) -> dict[str, Any]:
        """Until a person decides, whom it tells this step."""
        return self.until(lambda answer: answer["next"] == step)

    def until_over(self) -> dict[str, Any]:
        return self.until(lambda answer: answer["phase"] == "none")


@contextmanager
def daemon(settings: Path) -> Iterator[Daemon]:
    made = Daemon(settings)
    made.start()
    try:
        yield made
    finally:
        made.kill()


class App:
    def __init__(self, settings: Path, name: str) -> None:
        self.process = _spawn("support.migrating_app", str(settings), name)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def end(self) -> dict[str, Any]:
        """What it did."""
        out, _ = self.process.communicate(timeout=DEADLINE)
        told: dict[str, Any] = json.loads(out)
        return told


@contextmanager
def apps(settings: Path, count: int) -> Iterator[list[App]]:
    made = [App(settings, f"app{number}") for number in range(count)]
    try:
        yield made
    finally:
        for one in made:
            one.process.kill()
            one.process.communicate()


def stored(path: Path) -> Settings:
    return Settings.model_validate_json(path.read_bytes())


@asynccontextmanager
async def side(settings: Path, backend: str) -> AsyncIterator[Side]:
    """A store of the settings, to look into."""
    store = stored(settings).store
    around = Around(APPLIANCE, StaticBook(), NoSecrets(), Path("/nowhere"))
    async with StoreFactory().create(backend, store, around) as adapter:
        yield whole(adapter).side()


async def fill(one: Side, buckets: int, values: int) -> None:
    """Buckets that are an hour or more short of full, and values, every other of which expires."""
    names = [bucket_of(OWN, f"user-{number}") for number in range(buckets)]
    await one.raise_buckets([BucketLevel(name, 3600 * UNITS_A_S + at) for at, name in enumerate(names)])
    await one.put_values(
        [
            (f"value-{at}", Value(f"content {at}".encode(), 900_000 if at % 2 else None))
            for at in range(values)
        ]
    )


def put_foreign(server: Server) -> None:
    for key in FOREIGN:
        server.run("SET", key, "theirs")


def ours(server: Server) -> list[str]:
    """Keys of the server but those of others; all of others' must be there."""
    found = {key.decode() for key in server.run("KEYS", "*")}
    assert found >= set(FOREIGN)
    return sorted(found - set(FOREIGN))
