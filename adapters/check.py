# SPDX-License-Identifier: Apache-2.0
"""Trying a store out: can it be reached, does it let us in, does it decide, does its clock go right."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from valkyrie.adapters.errors import StoreError
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.store import StoreAdapter

CHECK_S = 15.0
APART_S = 5.0  # clocks further apart are worth mending, though no decision depends on this host's
PROBE = Limit.of("valkyrie-check", "1/s", "1")


@runtime_checkable
class HasClock(Protocol):
    async def server_time(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Step:
    """`state`: ok, warn or fail; `hint` says what to mend."""

    name: str
    state: str
    what: str
    hint: str = ""


async def check(make: Callable[[], StoreAdapter], wall: Callable[[], float] = time.time) -> list[Step]:
    """Try a store with connections of its own; takes no tokens. Ends with the first step that fails."""
    steps: list[Step] = []
    try:
        async with asyncio.timeout(CHECK_S):
            await _steps(make, wall, steps)
    except StoreError as error:
        steps.append(Step(_next(steps), "fail", error.what, error.hint or _hint(error)))
    except TimeoutError:
        hint = "is it reachable from here, and not overloaded?"
        steps.append(Step(_next(steps), "fail", f"no answer within {CHECK_S:g} s", hint))
    return steps


STEPS = ("connect", "serve", "decide", "clock")


def _next(steps: list[Step]) -> str:
    return STEPS[len(steps)]


async def _steps(make: Callable[[], StoreAdapter], wall: Callable[[], float], steps: list[Step]) -> None:
    store = make()
    try:
        took = await _timed(store.start)
        steps.append(Step("connect", "ok", f"connected and let in, in {took:.1f} ms"))
        health = await store.health_check()
        hint = "" if health.ok else "see the server's log"
        steps.append(Step("serve", "ok" if health.ok else "fail", health.detail, hint))
        if not health.ok:
            return
        took = await _timed(lambda: store.try_consume("check", 0, limit=PROBE))
        steps.append(Step("decide", "ok", f"try_consume decides in {took:.1f} ms"))
        if isinstance(store, HasClock):
            steps.append(clock_step(await store.server_time() - wall()))
    finally:
        with contextlib.suppress(StoreError):
            await store.close()


def clock_step(ahead_s: float) -> Step:
    """What a difference of clocks means: buckets go by the server's, credentials and logs by this host's."""
    if abs(ahead_s) < APART_S:
        return Step("clock", "ok", f"the server's clock differs by {ahead_s * 1000:+.0f} ms")
    what = f"the server's clock is {abs(ahead_s):.0f} s {'ahead' if ahead_s > 0 else 'behind'}"
    return Step("clock", "warn", what, "buckets go by the server's clock alone; set both by NTP")


async def _timed(call: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await call()
    return (time.perf_counter() - began) * 1000


def _hint(error: StoreError) -> str:
    return {
        "store-connection": "is the server running, and does `url` name its address?",
        "store-authentication": "run `valkyrie-ctl creds set NAME` with the password of the store's user",
        "store-authorization": "give the store's user the rights that docs/stores.md lists",
    }.get(error.code, "")
