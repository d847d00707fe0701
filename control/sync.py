# SPDX-License-Identifier: Apache-2.0
"""The appliance's state in a store: told once an interval, and asked when the kernel knows nothing.

Enforcement never waits for the store, and nothing queues up while it is away: the shadow (durable/changes.py)
says what is owed, and that is written when it is back. Only one appliance writes under a name. One that finds
another there writes nothing and asks again every second or so: it gets the name when the other has
been silent for ten seconds or has let go of it.

At start the store is asked before the NICs are attached, for START_WAIT_S at most: for the policy if this
machine's state knows nothing, and for the buckets if the kernel's table was made anew. What comes later is
put in while packets are policed already.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from valkyrie.adapters.durable import Owner
from valkyrie.adapters.errors import ConsistencyError, StoreConnectionError, StoreUnavailable
from valkyrie.adapters.naming import appliance_of
from valkyrie.adapters.secrets import Secrets
from valkyrie.adapters.settings import StoreSettings
from valkyrie.control.dataplane.maps import Dataplane
from valkyrie.control.durable.document import (
    COUNTERS,
    STATE,
    LaterVersion,
    check_version,
    pack_counters,
    pack_state,
)
from valkyrie.control.durable.identity import machine, token_of
from valkyrie.control.durable.names import groups_of
from valkyrie.control.durable.opening import Opened, backend_of, make_store
from valkyrie.control.durable.restore import (
    Restored,
    Restorer,
    kept_state,
    restore_buckets,
    restore_counters,
    take_kept,
)
from valkyrie.control.durable.rounds import Rounds
from valkyrie.control.errors import ValkyrieError
from valkyrie.control.service.core import Core

log = logging.getLogger(__name__)

START_WAIT_S = 3.0  # for the store, before packets are policed without what it holds
HEARTBEAT_S = 2.0  # well below the ten seconds after which a silent owner loses the name
PROBE_S = 1.0  # between two tries to reach a store that is away
COUNTERS_S = 10.0
END_S = 2.0  # for the last round, at shutdown
RESTART_S = 1.0  # what a daemon takes at least to come again: what is full by then need not be kept
NEVER = float("-inf")


class Tables(Restorer, Protocol):
    """What the sync needs of the kernel's data plane, once that was started."""

    @property
    def plane(self) -> Dataplane: ...

    @property
    def unfilled(self) -> bool:
        """Whether the table was made anew, by this daemon or one before, and not filled since."""
        ...

    def filled(self) -> None:
        """The table holds what the store held."""
        ...


class Sync:
    """`make(settings, appliance)` gives a store, not started; `tell(kind, what)` shows a note to those who
    follow the events; `token` and `node` say who this appliance is, `machine` on which machine.
    """

    def __init__(
        self,
        core: Core,
        tables: Tables,
        make: Callable[[StoreSettings, str], Opened],
        tell: Callable[[str, str], None],
        *,
        token: str,
        node: str,
        machine: str,
    ) -> None:
        self._core = core
        self._tables = tables
        self._make = make
        self._tell = tell
        self._token = token
        self._node = node
        self._machine = machine
        self._settings = core.settings.store
        self._store: Opened | None = None
        self._owner: Owner | None = None
        self._heard = NEVER  # when the store last knew us as the owner
        self._rounds: Rounds | None = None
        self._began = time.monotonic()  # what the kernel held by then is in the store
        self._due = NEVER  # when the next round begins
        self._wants_policy = False
        self._wants_buckets = False
        self._under_way: asyncio.Task[None] | None = None
        self._serial_told: int | None = None
        self._counters_told = (NEVER, b"")
        self._phase, self._trouble = "starting", ""
        self._last_write: float | None = None
        self._restored: Restored | None = None

    async def prepare(self) -> None:
        """Before anything is in force: if the state knows nothing, take over what the store kept of it."""
        if self._core.serial == 0:
            self._wants_policy = True
            await self._at_start()

    async def refill(self) -> None:
        """When the ruleset is in force and no NIC is attached yet: fill a new table from the store."""
        plane = self._tables.plane
        self._rounds = Rounds(plane, self._core.clock.mono_ns)
        self._wants_buckets = self._tables.unfilled
        if self._wants_buckets:
            await self._at_start()

    async def _at_start(self) -> None:
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._guarded(self._ask()))
            await asyncio.wait([self._under_way], timeout=START_WAIT_S)
        if self._wants_policy or self._wants_buckets:
            what = "limits" if self._wants_policy else "buckets"
            log.warning(
                "%s is not restored yet from the store %s: it will be when the store answers",
                what,
                self._backend,
            )

    async def run(self) -> None:
        """For ever: rounds, and what they need. Cancel it, then close()."""
        if self._under_way is not None:
            await self._under_way
        while True:
            began = time.monotonic()
            await self._guarded(self._turn())
            rest = min(self._due, began + HEARTBEAT_S) if self._phase == "ok" else began + PROBE_S
            await asyncio.sleep(max(0.0, rest - time.monotonic()))

    @property
    def _backend(self) -> str:
        return backend_of(self._settings)

    @property
    def _appliance(self) -> str:
        return appliance_of(self._settings.name, self._node)

    @property
    def _interval(self) -> float:
        return self._core.settings.sync.interval_seconds

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ConsistencyError as error:
            self._owner = None
            self._now("refused", str(error))
        except (StoreConnectionError, StoreUnavailable) as error:
            # The server may have been restarted from an older copy: what it was told is in doubt.
            if self._rounds is not None:
                self._rounds.shadow.forget()
            self._now("away", str(error))
        except ValkyrieError as error:
            self._now("away", str(error))

    async def _ask(self) -> None:
        """Be the owner, and have what this machine lacks."""
        if self._settings != self._core.settings.store:
            await self._move()
        if self._store is None:
            store = self._make(self._settings, self._appliance)
            await store.start()
            self._store = store
        if self._owner is None:
            await self._claim(self._store)
        if self._wants_policy:
            await self._take_policy(self._store)
        if self._wants_buckets and self._rounds is not None:
            await self._take_buckets(self._store, self._rounds)

    async def _move(self) -> None:
        """The settings were read again and name another store, or another way to it."""
        if self._store is not None:
            await self._end(self._store, last_round=False)
        self._store = self._owner = None
        self._settings = self._core.settings.store
        self._phase = "starting"
        self._say(f"state is to be kept in the store {self._backend} as {self._appliance} from now on")

    async def _claim(self, store: Opened) -> None:
        check_version(await store.get_document(STATE))
        self._owner = await store.claim(self._node, self._token)
        self._heard = time.monotonic()
        # Whoever was the owner meanwhile, or whatever the store lost: it is told everything once more.
        if self._rounds is not None:
            self._rounds.shadow.forget()
        self._serial_told = None
        self._counters_told = (NEVER, b"")

    async def _take_policy(self, store: Opened) -> None:
        try:
            kept = await kept_state(store)
        except LaterVersion:
            raise
        except ConsistencyError as error:
            log.error("the limits are not restored: %s", error)  # noqa: TRY400 - no bug, so no traceback
            kept = None
        if kept is not None and await self._core.in_turn(lambda: take_kept(self._core, kept, self._machine)):
            what = (
                f"this machine's state knew nothing: {len(kept.desired.limits)} limits, "
                f"{len(kept.desired.exempts)} exempts and {len(kept.desired.bans)} bans are restored as the "
                f"store {self._backend} kept them under {self._appliance}"
            )
            log.warning("%s", what)
            self._tell("sync", what)
        self._wants_policy = False

    async def _take_buckets(self, store: Opened, rounds: Rounds) -> None:
        began = time.monotonic()
        world = self._core.world
        found = await restore_buckets(store, world, self._tables)
        await restore_counters(store, world, self._tables.plane.limit_stats)
        self._tables.filled()
        self._wants_buckets = False
        self._restored = found
        took = time.monotonic() - began
        what = f"{found.placed} of {found.read} buckets restored from {self._backend} in {took:.1f} s"
        log.info("%s", what)
        self._tell("sync", what)

    async def _turn(self) -> None:
        try:
            await self._work()
        except LaterVersion:
            raise
        except ConsistencyError:
            # Another has claimed the name, or the store lost what it held: the claim tells which.
            if self._owner is None or self._store is None:
                raise
            await self._claim(self._store)
            self._say("the store had forgotten this appliance: everything is written anew")
            self._due = NEVER

    async def _work(self) -> None:
        owned = self._owner is not None
        await self._ask()
        store, rounds = self._store, self._rounds
        assert store is not None, "_ask() opens it"
        assert rounds is not None, "refill() comes first"
        if owned:
            await self._beat()
        if self._phase != "ok":
            self._now("ok", "")
        if time.monotonic() >= self._due:
            await self._round(store, rounds, self._interval)
        await self._documents(store)

    async def _beat(self) -> None:
        """Say that the owner is alive, if that was not said of late."""
        store = self._store
        if store is not None and time.monotonic() - self._heard >= min(self._interval, HEARTBEAT_S) / 2:
            await store.renew(self._token)
            self._heard = time.monotonic()

    async def _round(self, store: Opened, rounds: Rounds, interval_s: float) -> None:
        began = time.monotonic()
        self._due = began + self._interval
        settings, before = self._core.settings.sync, rounds.totals.written
        await rounds.run(
            store,
            self._token,
            groups_of(self._core.world),
            interval_s=interval_s,
            per_second=settings.buckets_a_second,
            between=self._beat,
        )
        self._began = began
        if rounds.totals.written > before:
            self._last_write = self._core.clock.wall()

    async def _documents(self, store: Opened) -> None:
        core = self._core
        serial, world = core.serial, core.world
        if self._serial_told != serial:
            packed = await asyncio.to_thread(pack_state, world, serial, self._appliance, self._machine)
            await store.put_document(STATE, packed, self._token)
            self._serial_told = serial
        at, content = self._counters_told
        if time.monotonic() - at >= max(COUNTERS_S, self._interval):
            packed = pack_counters(world, core.engine.figures().limits, self._appliance)
            if packed != content:
                await store.put_document(COUNTERS, packed, self._token)
            self._counters_told = (time.monotonic(), packed)

    def _now(self, phase: str, trouble: str) -> None:
        """Where things stand; said when it changes."""
        if (phase, trouble) == (self._phase, self._trouble):
            return
        before, self._phase, self._trouble = self._phase, phase, trouble
        if phase == "ok":
            if before == "starting":
                log.info("state is kept in the store %s as %s", self._backend, self._appliance)
            else:
                self._say(f"the store {self._backend} is back: what it missed is being written")
        elif before != phase:
            verb = "is away" if phase == "away" else "does not take this appliance's state"
            self._say(f"the store {self._backend} {verb}: {trouble}")

    def _say(self, what: str) -> None:
        log.warning("%s", what)
        self._tell("sync", what)

    def status(self) -> dict[str, Any]:
        """`state`: starting, ok, away (not reached) or refused (another writes there, or a later version
        has written). What was in the kernel `lag_s` ago is in the store; `owed` buckets are not yet.
        """
        totals = self._rounds.totals if self._rounds is not None else None
        return {
            "store": self._backend,
            "name": self._appliance,
            "state": self._phase,
            "problem": self._trouble,
            "owner": self._owner is not None,
            "epoch": self._owner.epoch if self._owner is not None else None,
            "lag_s": time.monotonic() - self._began,
            "owed": totals.owed if totals is not None else 0,
            "written": totals.written if totals is not None else 0,
            "dropped": totals.dropped if totals is not None else 0,
            "rounds": totals.rounds if totals is not None else 0,
            "last_write": self._last_write,
            "restored": self._restored.placed if self._restored is not None else None,
        }

    async def close(self) -> None:
        """The last round and farewell, END_S at most. Again: nothing."""
        store, self._store = self._store, None
        if self._under_way is not None:
            self._under_way.cancel()
        if store is not None:
            await self._end(store, last_round=True)

    async def _end(self, store: Opened, *, last_round: bool) -> None:
        try:
            async with asyncio.timeout(END_S):
                if self._phase == "ok" and self._owner is not None:
                    if last_round and self._rounds is not None:
                        await self._last_round(store, self._rounds)
                    await store.release(self._token)
        except TimeoutError:
            log.warning("the store %s took too long: its last changes are not in it", self._backend)
        except ValkyrieError as error:
            log.warning("the last changes are not in the store %s: %s", self._backend, error)
        finally:
            await store.close()

    async def _last_round(self, store: Opened, rounds: Rounds) -> None:
        await self._round(store, rounds, min(self._interval, RESTART_S))
        self._counters_told = (NEVER, self._counters_told[1])
        await self._documents(store)


def make_sync(
    core: Core,
    tables: Tables,
    tell: Callable[[str, str], None],
    secrets: Secrets,
    random_bytes: Callable[[int], bytes],
) -> Sync | None:
    """The sync that the settings ask for; None if they ask for none. Raises StateError."""
    settings = core.settings
    if not settings.sync.enabled:
        return None
    here = machine()
    return Sync(
        core,
        tables,
        lambda store, appliance: make_store(store, appliance, secrets),
        tell,
        token=token_of(settings.state_dir / "sync.token", here, random_bytes),
        node=socket.gethostname(),
        machine=here,
    )
