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
from typing import Any

from valkyrie.adapters.durable import Owner
from valkyrie.adapters.errors import ConsistencyError, OwnedByAnother, StoreConnectionError, StoreUnavailable
from valkyrie.adapters.naming import appliance_of
from valkyrie.adapters.secrets import Secrets
from valkyrie.adapters.settings import StoreSettings
from valkyrie.control.durable.document import STATE, LaterVersion, check_version
from valkyrie.control.durable.dual import make_routed
from valkyrie.control.durable.identity import machine, token_of
from valkyrie.control.durable.lack import Lack, Tables
from valkyrie.control.durable.names import groups_of
from valkyrie.control.durable.opening import Opened, backend_of
from valkyrie.control.durable.publish import COUNTERS_S, NEVER, Documents
from valkyrie.control.durable.rounds import Rounds
from valkyrie.control.durable.standing import Standing
from valkyrie.control.durable.takeover import heard_of, refuse_rival
from valkyrie.control.errors import ValkyrieError
from valkyrie.control.notes import Tell
from valkyrie.control.service.core import Core

log = logging.getLogger(__name__)

START_WAIT_S = 3.0  # for the store, before packets are policed without what it holds
LOOK_S = 0.1  # how often it is looked whether that wait counts
HEARTBEAT_S = 2.0  # well below the ten seconds after which a silent owner loses the name
PROBE_S = 1.0  # between two tries to reach a store that is away
END_S = 2.0  # for the last round, at shutdown
RESTART_S = 1.0  # what a daemon takes at least to come again: what is full by then need not be kept


class Sync:
    """`make(settings, appliance)` gives a store, not started; `tell(kind, what)` shows a note to those who
    follow the events; `token` and `node` say who this appliance is, `machine` on which machine.
    """

    def __init__(
        self,
        core: Core,
        tables: Tables,
        make: Callable[[StoreSettings, str], Opened],
        tell: Tell,
        *,
        token: str,
        node: str,
        machine: str,
    ) -> None:
        self._core = core
        self._tables = tables
        self._make = make
        self._standing = Standing(tell)
        self._lack = Lack(core, tables, self._standing, machine)
        self._documents = Documents(core, machine)
        self._machine = machine
        self._token = token
        self._node = node
        self._settings = core.settings.store
        self._route = core.route
        self._store: Opened | None = None
        self._owner: Owner | None = None
        self._heard = NEVER  # when the store last knew us as the owner
        self._rounds: Rounds | None = None
        self._began = time.monotonic()  # what the kernel held by then is in the store
        self._due = NEVER  # when the next round begins
        self._reclaimed = False  # the name, and no round has ended well since
        self._under_way: asyncio.Task[None] | None = None
        self._last_write: float | None = None

    async def prepare(self) -> None:
        """Before anything is in force: if the state knows nothing, take over what the store kept of it."""
        if self._core.serial == 0:
            self._lack.policy = True
            await self._at_start()

    async def refill(self) -> None:
        """When the ruleset is in force and no NIC is attached yet: fill a new table from the store."""
        self._look_at_table()
        if self._lack.buckets:
            await self._at_start()

    def _look_at_table(self) -> None:
        self._rounds = Rounds(self._tables.plane, self._core.clock.mono_ns)
        self._lack.buckets = self._tables.unfilled

    async def _at_start(self) -> None:
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._guarded(self._ask()))
            await self._answered(self._under_way)
        if self._lack:
            what = "limits" if self._lack.policy else "buckets"
            log.warning("%s are not restored from the store %s before it answers", what, self._backend)

    async def _answered(self, work: asyncio.Task[None]) -> None:
        """Wait START_WAIT_S for the store. A compiler takes its time on a slow host, and is not the store."""
        left = START_WAIT_S
        while left > 0 and not work.done():
            began, building = time.monotonic(), self._tables.building
            await asyncio.wait([work], timeout=min(left, LOOK_S))
            left -= 0.0 if building else time.monotonic() - began

    async def run(self) -> None:
        """For ever: rounds, and what they need. Cancel it, then close()."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:  # what fails in it fails once: called again, this begins with a turn
            await under_way
        if self._rounds is None:  # after pause(), or begun as a standby
            self._lack.policy = self._core.serial == 0
            self._look_at_table()
        while True:
            began = time.monotonic()
            await self._guarded(self._turn())
            rest = min(self._due, began + HEARTBEAT_S) if self._standing.ok else began + PROBE_S
            await asyncio.sleep(max(0.0, rest - time.monotonic()))

    @property
    def _backend(self) -> str:
        return self._route.primary if self._route is not None else backend_of(self._settings)

    @property
    def _appliance(self) -> str:
        return appliance_of(self._settings.name, self._node)

    @property
    def _interval(self) -> float:
        settings = self._core.settings
        if "yggdrasil" not in settings.store.chain:
            return settings.sync.interval_seconds
        return min(settings.sync.interval_seconds, settings.store.yggdrasil.snapshot_interval_seconds)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except OwnedByAnother as error:
            self._owner = None
            follow = f"`valkyrie-ctl standby follow {self._appliance}` has this one follow"
            self._standing.now("refused", f"{error}; {follow}", self._backend, fenced=True)
        except ConsistencyError as error:  # written by a later version, or damaged
            self._owner = None
            self._standing.now("refused", str(error), self._backend)
        except (StoreConnectionError, StoreUnavailable) as error:
            # The server may have been restarted from an older copy: what it was told is in doubt.
            if self._rounds is not None:
                self._rounds.shadow.forget()
            self._standing.now("away", str(error), self._backend)
        except ValkyrieError as error:
            self._standing.now("away", str(error), self._backend)

    async def _ask(self) -> None:
        """Be the owner, and have what this machine lacks."""
        if (self._settings, self._route) != (self._core.settings.store, self._core.route):
            await self._move()
        if self._store is None:
            store = self._make(self._settings, self._appliance)
            try:
                await store.start()
            except BaseException:
                await store.close()
                raise
            self._store = store
        if self._owner is None:
            await self._claim(self._store)
        if self._lack:
            async with heard_of(
                self._store, self._token
            ):  # a million buckets take longer than a standby waits
                await self._lack.supply(self._store, self._backend)

    async def _move(self) -> None:
        """The settings were read again and name another store, or another way to it."""
        if self._store is not None:
            await self._end(self._store, last_round=False)
        self._store = self._owner = None
        self._settings, self._route = self._core.settings.store, self._core.route
        self._standing.begin()
        self._standing.say(
            f"state is to be kept in the store {self._backend} as {self._appliance} from now on"
        )

    async def _claim(self, store: Opened) -> None:
        content = await store.get_document(STATE)
        check_version(content)
        if not self._lack.policy:
            await refuse_rival(content, self._core.world, self._machine, self._appliance)
        self._owner = await store.claim(self._node, self._token)
        self._heard = time.monotonic()
        # Whoever was the owner meanwhile, or whatever the store lost: it is told everything once more.
        if self._rounds is not None:
            self._rounds.shadow.forget()
        self._documents.forget()

    async def _turn(self) -> None:
        try:
            await self._work()
        except LaterVersion:
            raise
        except ConsistencyError:
            # Another has claimed the name, or the store lost what it held: the claim tells which.
            if self._owner is None or self._store is None or self._reclaimed:
                raise
            await self._claim(self._store)
            self._reclaimed = True
            self._standing.say("the store had forgotten this appliance: everything is written anew")
            self._due = NEVER

    async def _work(self) -> None:
        owned = self._owner is not None
        await self._ask()
        store, rounds = self._store, self._rounds
        assert store is not None, "_ask() opens it"
        assert rounds is not None, "refill() comes first"
        if owned:
            await self._beat()
        if not self._standing.ok:
            self._due = NEVER
            if not self._reclaimed:
                self._standing.now("ok", "", self._backend)
        if time.monotonic() >= self._due:
            await self._round(store, rounds, self._interval)
        await self._documents.write(
            store, self._token, self._appliance, counters_s=max(COUNTERS_S, self._interval)
        )
        self._reclaimed = False
        self._standing.now("ok", "", self._backend)

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

    @property
    def fenced(self) -> bool:
        """Whether another appliance owns the name."""
        return self._standing.fenced

    def status(self) -> dict[str, Any]:
        """`state` is Standing's phase. What was in the kernel `lag_s` ago is in the store; `owed` buckets are
        not yet.
        """
        totals = self._rounds.totals if self._rounds is not None else None
        return {
            "store": self._backend,
            "name": self._appliance,
            "state": self._standing.phase,
            "problem": self._standing.problem,
            "owner": self._owner is not None,
            "epoch": self._owner.epoch if self._owner is not None else None,
            "lag_s": time.monotonic() - self._began,
            "owed": totals.owed if totals is not None else 0,
            "written": totals.written if totals is not None else 0,
            "dropped": totals.dropped if totals is not None else 0,
            "rounds": totals.rounds if totals is not None else 0,
            "last_write": self._last_write,
            "restored": None if self._lack.restored is None else self._lack.restored.placed,
        }

    async def pause(self) -> None:
        """Let go of the name, as close() does; run() goes on from there, by the settings of then."""
        await self.close()
        self._owner = self._rounds = self._under_way = None
        self._due, self._reclaimed = NEVER, False
        self._standing.begin()

    def role_changed(self) -> None:
        """What was refused under the former name says nothing of the next. While all is well the standing
        stays: the farewell under the former name goes by it.
        """
        if not self._standing.ok:
            self._standing.begin()

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
                if self._standing.ok and self._owner is not None:
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
        await self._documents.write(store, self._token, self._appliance, counters_s=0)


def make_sync(
    core: Core,
    tables: Tables,
    tell: Tell,
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
        lambda store, appliance: make_routed(lambda: core.route, store, appliance, secrets),
        tell,
        token=token_of(settings.state_dir / "sync.token", here, random_bytes),
        node=socket.gethostname(),
        machine=here,
    )
