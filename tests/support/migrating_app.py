# SPDX-License-Identifier: Apache-2.0
"""An application under load as a process of its own, over the chain of the settings.

`python -m support.migrating_app SETTINGS.json NAME`; it ends with standard input, and prints what it did.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.factory import Around, StoreFactory
from valkyrie.adapters.hybrid.manager import HybridStoreManager
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.naming import appliance_of
from valkyrie.adapters.secrets import NoSecrets
from valkyrie.adapters.settings import StoreSettings
from valkyrie.adapters.store import Request
from valkyrie.control.config import Settings
from valkyrie.control.errors import ValkyrieError

SCARCE = Limit.of("scarce", "1/h", "400")  # one bucket that all processes share
STEADY = Limit.of("steady", "40/s", "40")  # likewise, refilled all the time
FREE = Limit.of("free", "10/s", "1000")
KEYS = 500
PAUSE_S = 0.01
CALLERS = 4


class App:
    def __init__(self, store: HybridStoreManager, name: str) -> None:
        self.store = store
        self.name = name
        self.done: Counter[str] = Counter()
        self.errors: list[str] = []
        self.stores: Counter[str] = Counter()
        self.longest = 0.0
        self.kept: dict[str, str | None] = {}  # what this process wrote last
        self.ended = False

    async def caller(self, number: int) -> None:
        chance = random.Random(f"{self.name}{number}")
        for turn in itertools.count():
            if self.ended:
                return
            began = time.monotonic()
            try:
                await self.turn(number, turn, chance)
                self.done["calls"] += 1
            except ValkyrieError as error:
                self.errors.append(repr(error))
            self.longest = max(self.longest, time.monotonic() - began)
            await asyncio.sleep(PAUSE_S)

    async def turn(self, number: int, turn: int, chance: random.Random) -> None:
        key = f"{self.name}-{number}-{chance.randrange(KEYS)}"
        kind = turn % 5
        if kind == 0:
            decision = await self.store.try_consume("all", limit=SCARCE)
            self.done["scarce"] += decision.allowed
            self.stores[decision.store] += 1
            steady = await self.store.try_consume("all", limit=STEADY)
            self.done["steady"] += steady.allowed
        elif kind == 1:
            asked = [Request(f"{key}-{index}", FREE) for index in range(5)]
            found = await self.store.try_consume_many(asked)
            self.done["free"] += sum(one.allowed for one in found)
        elif kind == 2:
            await self.store.set(key, str(turn).encode(), 600.0 if turn % 2 else None)
            self.kept[key] = str(turn)
        elif kind == 3:
            await self.store.delete(key)
            self.kept[key] = None
        elif turn % 10 == 4:
            await self.store.increment("count")
            self.done["count"] += 1
        else:
            await self.store.get(key)


def tell(line: str) -> None:
    """To whoever started this process."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(settings: StoreSettings, name: str) -> None:
    around = Around(appliance_of(settings.name, "host"), StaticBook(), NoSecrets(), Path("/nowhere"))
    async with StoreFactory().chain(settings, around) as store:
        app = App(store, name)
        began = time.monotonic()
        tasks = [asyncio.create_task(app.caller(number)) for number in range(CALLERS)]
        tell("ready")
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
        app.ended = True
        await asyncio.gather(*tasks)
        told = {
            "done": app.done, "errors": app.errors, "stores": app.stores, "longest": app.longest,
            "kept": app.kept, "seconds": time.monotonic() - began,
            "extra": [dict(one.stats.extra) for one in store.status().stores if one.stats],
        }  # fmt: skip
    tell(json.dumps(told))


if __name__ == "__main__":
    read = Settings.model_validate_json(Path(sys.argv[1]).read_bytes())
    asyncio.run(main(read.store, sys.argv[2]))
