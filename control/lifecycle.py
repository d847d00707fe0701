# SPDX-License-Identifier: Apache-2.0
"""What the daemon does by itself while it runs: end trials, sweep, put programs back, pass events on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from valkyrie.control.dataplane.watch import LinkEvent
from valkyrie.control.errors import ValkyrieError
from valkyrie.control.service.service import Service

log = logging.getLogger(__name__)

SWEEP_S = 10.0
RETRY_S = 1.0  # after a failure, as with a full disk


async def keep(service: Service) -> None:
    """Detach what is not confirmed in time, to the moment; every SWEEP_S remove what has expired, and
    try again what could not be done before.
    """
    swept = time.monotonic()
    while True:
        service.core.changed.clear()
        until_sweep = max(0.0, SWEEP_S - (time.monotonic() - swept))
        deadline = service.nics.next_deadline()
        await _changed(service, min(until_sweep, until_sweep if deadline is None else deadline))
        try:
            if service.nics.next_deadline() == 0:
                await service.nics.expire()
            if time.monotonic() - swept >= SWEEP_S:
                swept = time.monotonic()
                await service.sweep()
        except ValkyrieError as error:
            log.error("%s", error)  # noqa: TRY400 - no bug, so no traceback
            await asyncio.sleep(RETRY_S)


async def _changed(service: Service, seconds: float) -> None:
    # asyncio.wait_for of Python 3.11 can lose a cancellation that comes as the event is set.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await service.core.changed.wait()


async def watch_links(service: Service, links: AsyncIterator[LinkEvent], prog_id: Callable[[], int]) -> None:
    """Put the program back on NICs that come back, are made anew, or lost it to a reset; and say so."""
    seen: dict[str, tuple[int, bool]] = {}
    async for event in links:
        wanted = service.core.world.nics
        if event.kind == "resync":
            await _restore(service)
            continue
        if event.name not in wanted:
            if event.prog_id == prog_id():  # perhaps one of ours under another name
                await _restore(service)
            continue
        if event.kind == "removed":
            seen.pop(event.name, None)
            service.nics.say("link", f"{event.name}: gone; it will be attached again when it comes back")
            continue
        now = (event.ifindex, event.running)
        before = seen.get(event.name)
        seen[event.name] = now
        if before is not None and before[0] == event.ifindex and before[1] != event.running:
            service.nics.say("link", f"{event.name}: link {'up' if event.running else 'down'}")
        if event.prog_id != prog_id() or service.nics.is_away(event.name):
            await _restore(service)


async def _restore(service: Service) -> None:
    try:
        await service.nics.restore()
    except ValkyrieError as error:
        log.error("%s", error)  # noqa: TRY400 - no bug, so no traceback


async def ping(interval_s: float, notify: Callable[[str], None]) -> None:
    """Tell systemd's watchdog that the event loop is alive."""
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)


async def forever(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run a part that must not end; a bug in it is told with its traceback, and it starts again.

    Once cancelled it ends, also when what it cleans up fails on the way out.
    """
    task = asyncio.current_task()
    while True:
        try:
            await work()
        except ValkyrieError as error:
            log.error("%s: %s", name, error)  # noqa: TRY400 - no bug, so no traceback
        except Exception:
            log.exception("%s failed", name)
        if task is not None and task.cancelling():
            return
        await asyncio.sleep(RETRY_S)
