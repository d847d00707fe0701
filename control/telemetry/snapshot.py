# SPDX-License-Identifier: Apache-2.0
"""One frozen look at the appliance, of which metrics, alerts and status tell.

Its cost is bounded: the counters are 256 rows a CPU, the scan of the table keeps within a hundredth of a core
(meters.py), and whatever reads files or asks the kernel does so in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from valkyrie.adapters.hybrid.events import ChainStatus
from valkyrie.control.errors import ValkyrieError
from valkyrie.control.telemetry.meters import CallFigures, ExportFigures
from valkyrie.control.telemetry.process import ProcessFigures, Received, process_figures, received
from valkyrie.control.version import installed

if TYPE_CHECKING:
    from valkyrie.control.service.core import Core
    from valkyrie.control.service.engine import LeaseFigures, Wire
    from valkyrie.control.service.service import Service


@dataclass(frozen=True, slots=True)
class LimitFigures:
    """`slot` is its row of Snapshot.counters."""

    name: str
    action: str
    slot: int


@dataclass(frozen=True, slots=True)
class NicFigures:
    """A NIC that is to be policed. `present`: the host has one of that name; `running`: its link is up;
    `attached`: it carries our program, in `mode` (native or generic).
    """

    name: str
    present: bool
    running: bool
    attached: bool
    mode: str
    received: Received | None


@dataclass(frozen=True, slots=True)
class SyncFigures:
    """`state` is `off`, `starting`, `ok`, `away` or `refused`; what was in the kernel `lag_s` ago is kept.
    The counts are since the start of the daemon.
    """

    state: str
    problem: str = ""
    owner: bool = False
    lag_s: float = 0.0
    owed: int = 0
    written: int = 0
    dropped: int = 0
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class CredentialFigures:
    name: str
    version: int
    age_s: float


@dataclass(frozen=True, slots=True)
class AdapterFigures:
    """A way to reach people. `queued` messages wait, `dropped` found the queue full, and `dead` will not be
    delivered unless somebody asks for it.
    """

    name: str
    failing: bool
    queued: int
    dropped: int
    dead: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`counters` are abi.LIMIT_STATS by slot, `reasons` abi.REASON_STATS by abi.Reason, both copies; `table`
    counts by name (stats.table: inserted, evicted_live, events_lost...). `occupancy` of `capacity` buckets
    are not full. `chain` None: the stores have not started, `stores_problem` says why.
    """

    wall: float
    mono: float
    serial: int
    limits: tuple[LimitFigures, ...]
    counters: np.ndarray[Any, Any]
    reasons: np.ndarray[Any, Any]
    table: Mapping[str, int]
    capacity: int
    occupancy: int
    leases: LeaseFigures
    overrides: int
    exempts: int
    bans: int
    nics: tuple[NicFigures, ...]
    chain: ChainStatus | None
    stores_problem: str
    sync: SyncFigures
    credentials: tuple[CredentialFigures, ...]
    credentials_problem: str
    firing: Mapping[str, int]  # alerts by severity
    adapters: tuple[AdapterFigures, ...]
    unheard: int  # messages that had no adapter to go to
    process: ProcessFigures
    calls: tuple[CallFigures, ...]
    exports: tuple[ExportFigures, ...]
    version: str


async def take(service: Service) -> Snapshot:
    """The appliance as it is. In the event loop's thread; it waits for one thread, some milliseconds."""
    core = service.core
    world = core.world
    chain, problem = service.stores.chain()
    sync = _sync(service.keeping.status())
    calls = service.meters.calls.figures()
    exports = service.meters.exports.figures()
    firing = service.alerts.firing()
    told = service.notifications.brief()

    def look() -> Snapshot:
        figures = core.engine.figures()
        slots = world.allotment.slots
        credentials, trouble = _credentials(service)
        return Snapshot(
            wall=core.clock.wall(),
            mono=core.clock.mono_ns() / 1e9,
            serial=core.serial,
            limits=tuple(
                LimitFigures(one.name, one.action, slots[one.name].slot) for one in world.desired.limits
            ),
            counters=figures.limits.copy(),
            reasons=figures.reasons.copy(),
            table=figures.table,
            capacity=core.engine.capacity,
            occupancy=service.meters.occupancy(),
            leases=core.engine.leases(),
            overrides=len(world.desired.overrides),
            exempts=len(world.desired.exempts),
            bans=len(world.desired.bans),
            nics=_nics(core),
            chain=chain,
            stores_problem=problem,
            sync=sync,
            credentials=credentials,
            credentials_problem=trouble,
            firing=firing,
            adapters=tuple(map(_adapter, told["adapters"])),
            unheard=told["unheard"],
            process=process_figures(),
            calls=calls,
            exports=exports,
            version=installed(),
        )

    return await asyncio.to_thread(look)


def _nics(core: Core) -> tuple[NicFigures, ...]:
    """As the host has them; one that is called otherwise than it was counts by the name it has."""
    wanted = core.world.nics
    if not wanted:
        return ()
    try:
        wires = core.engine.wires()
    except ValkyrieError:
        wires = {}
    counted = received()
    return tuple(_nic(name, wires.get(name), counted.get(name)) for name in wanted)


def _nic(name: str, wire: Wire | None, counted: Received | None) -> NicFigures:
    if wire is None:
        return NicFigures(name, present=False, running=False, attached=False, mode="", received=counted)
    return NicFigures(
        name,
        present=True,
        running=wire.running,
        attached=wire.carries,
        mode=wire.mode if wire.carries else "",
        received=counted,
    )


def _sync(status: dict[str, Any]) -> SyncFigures:
    if status["state"] == "off":
        return SyncFigures("off")
    names = ("state", "problem", "owner", "lag_s", "owed", "written", "dropped", "rounds")
    return SyncFigures(**{name: status[name] for name in names})


def _adapter(row: Mapping[str, Any]) -> AdapterFigures:
    return AdapterFigures(row["name"], row["state"] == "failing", row["queued"], row["dropped"], row["dead"])


def _credentials(service: Service) -> tuple[tuple[CredentialFigures, ...], str]:
    """By name, and why they cannot be read."""
    try:
        records = service.credentials.store.vault.records()
    except ValkyrieError as error:
        return (), error.what
    now = service.core.clock.wall()
    return tuple(
        CredentialFigures(name, record.newest.number, max(0.0, now - record.newest.created))
        for name, record in sorted(records.items())
    ), ""
