# SPDX-License-Identifier: Apache-2.0
"""valkyried: read the settings, open the state, have the program enforce it, then serve the API.

What is attached stays attached when this process ends, however it ends; only `detach` takes it off.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from valkyrie.control import abi
from valkyrie.control.api.listener import bind, group_id
from valkyrie.control.config import Settings, load_settings
from valkyrie.control.dataplane.layout import CAPTURED, OBSERVED
from valkyrie.control.dataplane.watch import LinkWatch
from valkyrie.control.errors import ValkyrieError
from valkyrie.control.lifecycle import forever, keep, ping, watch_links
from valkyrie.control.oneheap import share_heap
from valkyrie.control.sdnotify import notify, watchdog_interval
from valkyrie.control.service.clock import RANDOM_BYTES, Clock
from valkyrie.control.service.kernel import KernelEngine
from valkyrie.control.service.service import Service
from valkyrie.control.standby import Standby, make_standby
from valkyrie.control.state.store import State
from valkyrie.control.telemetry import logs
from valkyrie.control.undumpable import forbid_core_dumps

if TYPE_CHECKING:
    from valkyrie.control.api.server import Server

log = logging.getLogger("valkyried")


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit status is the error's, 0 when asked to end."""
    parser = argparse.ArgumentParser(prog="valkyried", description="the daemon of the Valkyrie appliance")
    parser.add_argument(
        "--config", type=Path, help="settings; else $VALKYRIE_CONFIG, else /etc/valkyrie/valkyrie.yaml"
    )
    path = parser.parse_args(arguments).config
    forbid_core_dumps()
    share_heap()
    try:
        settings = load_settings(path)
        logs.set_up(settings.log, settings.log_format)
        _say_unusable_files(path)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings, path))
    except ValkyrieError as error:
        where = getattr(error, "where", "")
        print(f"valkyried: {error.what}" + (f" ({where})" if where else ""), file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def _say_unusable_files(path: Path | None) -> None:
    """A certificate that is missing costs its store, never the enforcement."""
    try:
        load_settings(path, check_files=True)
    except ValkyrieError as error:
        log.error("%s; packets are policed all the same", error)  # noqa: TRY400 - no bug, so no traceback


async def _run(settings: Settings, path: Path | None) -> None:
    state = State.open(settings.database, RANDOM_BYTES)
    write_group, read_group = group_id(settings.group), group_id(settings.read_group)
    listener = bind(settings.socket, write_group=write_group, read_group=read_group)
    engine = KernelEngine(settings, state.secret, RANDOM_BYTES)
    service = Service(settings, state, engine, Clock())
    standby = make_standby(
        service.core, engine, service.hub.tell, service.renamed, service.credentials.store, RANDOM_BYTES
    )
    if standby is not None:
        service.keeping = service.standby = standby
    try:
        # Before the first look at the NICs, so that nothing that happens in between is missed.
        with LinkWatch() as links:
            await service.start()
            log.info("enforcing")
            # Only now: the packets need not wait for the API's libraries.
            from valkyrie.control.api.peer import Access  # noqa: PLC0415
            from valkyrie.control.api.server import make_server  # noqa: PLC0415

            server = make_server(listener, Access(write_group, read_group), service)
            await _serve(server, path, service, engine, links, standby)
    finally:
        listener.close()
        settings.socket.unlink(missing_ok=True)
        await service.close()
    log.info("ended; what is attached goes on being policed")


async def _serve(
    server: Server,
    path: Path | None,
    service: Service,
    engine: KernelEngine,
    links: LinkWatch,
    standby: Standby | None,
) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _end, server, service)
    reloads: set[asyncio.Task[None]] = set()
    loop.add_signal_handler(signal.SIGHUP, lambda: _spawn(reloads, _reload(service, path)))
    tasks = [
        loop.create_task(forever("the timer", lambda: keep(service))),
        loop.create_task(
            forever("the link watch", lambda: watch_links(service, links.events(), engine.program_id))
        ),
        loop.create_task(forever("the event reader", lambda: service.drops.pump(engine.events()))),
    ]
    frames = partial(engine.records, CAPTURED, abi.CAPTURED)
    seen = partial(engine.records, OBSERVED, abi.OBSERVED)
    tasks.append(loop.create_task(forever("the capture reader", lambda: service.captures.pump(frames()))))
    tasks.append(
        loop.create_task(forever("the observation reader", lambda: service.observations.pump(seen())))
    )
    tasks.append(loop.create_task(_serve_calls(engine, service, server)))
    tasks.append(loop.create_task(forever("the alerts", service.alerts.run)))
    tasks.append(loop.create_task(forever("notifications", service.notifications.run)))
    tasks.append(loop.create_task(forever("telemetry", service.telemetry.run)))
    tasks.append(loop.create_task(forever("the migration", service.migration.run)))
    if standby is not None:
        tasks.append(loop.create_task(forever("the sync", standby.run)))
    interval = watchdog_interval()
    if interval is not None:
        tasks.append(loop.create_task(ping(interval, notify)))
    try:
        await server.run_until_told(lambda: notify("READY=1"))
    finally:
        notify("STOPPING=1")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *reloads, return_exceptions=True)


async def _serve_calls(engine: KernelEngine, service: Service, server: Server) -> None:
    """Packets come first, and go on being policed if calls cannot be served. The stores come last: a chain
    that starts before the kernel's table takes calls would switch away from it, and raise an alarm.
    """
    try:
        await asyncio.to_thread(engine.ready_for_calls)
    except ValkyrieError as error:
        if server.should_exit:  # systemd tells the build to end as well
            return
        log.error("calls to the kernel's table cannot be served: %s", error)  # noqa: TRY400 - no bug
    await forever("the stores", service.stores.run)


def _end(server: Server, service: Service) -> None:
    server.should_exit = True
    service.hub.close()
    service.captures.close()
    service.observations.end_all()


def _spawn(running: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    running.add(task)
    task.add_done_callback(running.discard)


async def _reload(service: Service, path: Path | None) -> None:
    """Read the settings again. Wrong ones are said and the old ones stay in force."""
    try:
        waiting = await service.reload(load_settings(path, check_files=True))
    except ValkyrieError as error:
        log.error("settings not reloaded: %s", error)  # noqa: TRY400 - no bug, so no traceback
        return
    if waiting:
        log.warning("these settings take effect at the next start: %s", ", ".join(waiting))
    logs.set_level(service.core.settings.log)
    log.info("settings reloaded")


if __name__ == "__main__":
    sys.exit(main())
