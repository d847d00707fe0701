# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201 - its output is read by who started it
"""Calls `try_consume` one at a time until its input ends, then prints [began, took] of each in ns.

python -m bench.beside KIND URL
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

from bench.store_calls import KEYS, LIMIT, PATIENT_MS
from support.resp import adapter_for


async def main(kind: str, url: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    taken: list[tuple[int, int]] = []
    async with adapter_for("redis" if kind == "redis" else "valkey", url, timeout_ms=PATIENT_MS) as store:
        for key in KEYS:
            await store.try_consume(key, limit=LIMIT)
        print("calling", flush=True)
        while not ended.is_set():
            for key in KEYS[:20]:
                began = time.monotonic_ns()
                await store.try_consume(key, limit=LIMIT)
                taken.append((began, time.monotonic_ns() - began))
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    print(json.dumps(taken))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
