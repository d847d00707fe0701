# SPDX-License-Identifier: Apache-2.0
"""The daemon's part of a migration as a process of its own: a sync over a table in memory, and the migration.

`python -m support.migrating_daemon SETTINGS.json`; a line of JSON on standard input is a step, a line on
standard output its answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from support.fake_engine import FakeEngine
from support.table import Table, Tables
from valkyrie.adapters.secrets import NoSecrets
from valkyrie.control.audit import DAEMON
from valkyrie.control.config import Settings
from valkyrie.control.durable.dual import make_routed
from valkyrie.control.errors import ValkyrieError
from valkyrie.control.lifecycle import forever
from valkyrie.control.service.clock import Clock
from valkyrie.control.service.core import Core
from valkyrie.control.service.migration import Migration
from valkyrie.control.state.store import State
from valkyrie.control.sync import Sync


async def answer(migration: Migration, line: bytes) -> dict[str, Any]:
    step, *args = json.loads(line)
    force = "force" in args
    try:
        if step == "status":
            return migration.status()
        if step == "start":
            return await migration.start(DAEMON, args[0], args[1], overwrite="overwrite" in args)
        return await migration.ask(DAEMON, step, force=force)
    except ValkyrieError as error:
        return {"refused": error.code, "what": str(error)}


def tell(line: str) -> None:
    """To whoever started this process."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(settings: Settings) -> None:
    core = Core(settings, State.open(settings.database, bytes), FakeEngine(), Clock())
    migration = Migration(core, NoSecrets(), lambda kind, what: None)
    sync = Sync(
        core,
        Tables(Table(64)),
        lambda store, appliance: make_routed(lambda: core.route, store, appliance, NoSecrets()),
        lambda kind, what: None,
        token="a" * 32,
        node="here",
        machine="machine",
    )
    await sync.prepare()
    await core.in_turn(core.start)
    await sync.refill()
    tasks = [
        asyncio.create_task(forever("the migration", migration.run)),
        asyncio.create_task(forever("the sync", sync.run)),
    ]
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        tell(json.dumps(await answer(migration, line)))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await sync.close()
    await core.close()


if __name__ == "__main__":
    asyncio.run(main(Settings.model_validate_json(Path(sys.argv[1]).read_bytes())))
