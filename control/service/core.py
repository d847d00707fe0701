# SPDX-License-Identifier: Apache-2.0
"""How a change happens: validate, compile, write in a transaction, publish, commit.

One thread makes all changes, one after the other, so that the event loop stays free and a caller
who goes away cannot leave a change half made.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from typing import Any, TypeVar

from valkyrie.adapters.naming import appliance_of
from valkyrie.control.audit import DAEMON, Actor, entry
from valkyrie.control.config import Settings
from valkyrie.control.durable.dual import Route
from valkyrie.control.durable.role import Role, named
from valkyrie.control.errors import Conflict, ValkyrieError
from valkyrie.control.ruleset.compile import (
    CompileCache,
    CompiledRuleset,
    RulesetSettings,
    SlotUid,
    compile_ruleset,
)
from valkyrie.control.service.clock import Clock
from valkyrie.control.service.engine import Engine
from valkyrie.control.service.world import World
from valkyrie.control.state.policy import PolicyChange, change_between
from valkyrie.control.state.slots import allot, settled
from valkyrie.control.state.store import State, Transaction
from valkyrie.control.telemetry.spans import Trace, span, under_way

log = logging.getLogger(__name__)

CLOCK_STEP_S = 1.0  # clocks apart by less are left to drift

T = TypeVar("T")


class Core:
    """The world in force and the only way to change it. Shared by the operations of every noun."""

    def __init__(self, settings: Settings, state: State, engine: Engine, clock: Clock) -> None:
        self.state = state
        self.role = state.role()
        self.use(settings)
        self.route: Route | None = None  # while the store is migrated, and another than the settings name
        self.migrating = False  # also when the settings name the store that remains
        self.engine = engine
        self.clock = clock
        self.world = World(state.desired(), state.nics(), state.allotment())
        self.compiled: CompiledRuleset | None = None
        self.serial = state.serial()
        self.changed_by: Trace | None = None  # the operation, traced, that made the world of this serial
        self.changed = asyncio.Event()  # set after every change: timers look again
        self._cache = CompileCache()
        self._boot = self._booted()  # as the ruleset in force has it
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="change")

    @property
    def node(self) -> str:
        """What this machine is called, whatever name it works under in the stores."""
        return appliance_of(self.given.store.name, socket.gethostname())

    def use(self, settings: Settings) -> None:
        """These settings from now on, with the name that goes with the role."""
        self.given = settings
        self.settings = named(settings, self.role)

    def take_role(self, actor: Actor, role: Role, action: str, detail: dict[str, Any]) -> None:
        """Work under another name, or follow it; in the thread of changes. StateError: as it was."""
        written = entry(self.clock.wall(), actor, action, role.name or self.role.name, detail)
        with self.state.transaction() as transaction:
            transaction.role(role)
            transaction.audit(written, self.settings.audit.keep)
        self.role = role
        self.use(self.given)

    async def in_turn(self, work: Callable[[], T]) -> T:
        """Run in the thread of changes, after those that wait already."""
        inside = copy_context()  # so that what the thread does belongs to the trace of the operation
        return await asyncio.get_running_loop().run_in_executor(self._thread, inside.run, work)

    async def change(
        self, actor: Actor, action: str, target: str, detail: dict[str, Any], update: Callable[[World], World]
    ) -> World:
        """Make `update(world)` the world, wholly or not at all; the world is then returned.

        `update` is pure and runs in the thread of changes. Whatever it raises, and StateError or
        DataplaneError, leaves the state and what is enforced as they were.
        """
        world = await self.in_turn(lambda: self.make(actor, action, target, detail, update))
        await self.after_change()
        return world

    async def after_change(self) -> None:
        """Wake the timers, and purge what a deleted limit left."""
        self.changed.set()
        if self.world.allotment.retired:
            await self.in_turn(self.settle)

    def make(
        self, actor: Actor, action: str, target: str, detail: dict[str, Any], update: Callable[[World], World]
    ) -> World:
        """`change` for callers that are in the thread already."""
        new = update(self.world)
        if new is self.world:
            return new
        if self.role.follows and actor != DAEMON and new.desired is not self.world.desired:
            raise Conflict(
                f"this appliance follows {self.role.name}",
                "change it there, or take over: valkyrie-ctl standby take-over",
            )
        if self.world.allotment.retired:
            self.settle()
        new = self._allotted(new)
        written = entry(self.clock.wall(), actor, action, target, detail)

        def write(transaction: Transaction) -> None:
            transaction.audit(written, self.settings.audit.keep)

        self._put_in_force(new, write)
        return new

    def _allotted(self, world: World) -> World:
        keys = {limit.name: limit.key for limit in world.desired.limits}
        return world.but(allotment=allot(self.world.allotment, keys))

    def try_out(self, world: World) -> None:
        """Compile without putting in force; in the thread of changes. Raises what a change would."""
        self.compile(self._allotted(world), self.serial + 1)

    def _put_in_force(self, new: World, write: Callable[[Transaction], None]) -> None:
        old, before = self.world, self.compiled
        with span("ruleset.compile"):
            compiled = self.compile(new, self.serial + 1)
        change = change_between(old.desired, new.desired)
        published = False
        try:
            with span("state.write"), self.state.transaction() as transaction:
                self._write(transaction, new, self.serial + 1, change)
                write(transaction)
                with span("maps.publish"):
                    self.engine.publish(compiled)
                published = True
        except BaseException:
            # The packets obeyed the new ruleset for the moment that the commit took to fail.
            if published and before is not None:
                self.engine.publish(before)
                self._forget_new(old, new)
            raise
        self.changed_by = under_way()
        self.world = new
        self.serial += 1  # last: who sees it sees the world that it numbers
        self._is_in_force(compiled)
        self._forgive(old, new, change)

    def _write(self, transaction: Transaction, new: World, serial: int, change: PolicyChange) -> None:
        """What turns the rows of the world in force into those of `new`."""
        old = self.world
        transaction.policy(change)
        transaction.allotment(old.allotment, new.allotment)
        for name in old.nics.keys() - new.nics.keys():
            transaction.drop_nic(name)
        for name, nic in new.nics.items():
            if old.nics.get(name) != nic:
                transaction.put_nic(nic)
        transaction.serial(serial)

    def _forgive(self, old: World, new: World, change: PolicyChange) -> None:
        """Nobody waits longer than the plans in force let him: a debt of hours under a limit that was
        too low by mistake ends with the mistake.
        """
        touched = {limit.name for limit in change.put_limits}
        touched |= {entry.limit for entry in change.put_overrides}
        touched |= {name for name, _ in change.drop_overrides if name in new.limits}
        for name in sorted(touched & old.limits.keys()):
            slot = new.allotment.slots[name]
            if slot == old.allotment.slots[name] and new.deepest(name) < old.deepest(name):
                self.engine.cap(slot.uid, new.deepest(name))

    def _is_in_force(self, compiled: CompiledRuleset) -> None:
        self.compiled = compiled
        self._boot = self._booted()

    def _forget_new(self, old: World, new: World) -> None:
        """What limits that never came to be left in the kernel: their numbers will be given to others."""
        before = old.allotment.slots.values()
        uids = {slot.uid for slot in new.allotment.slots.values()} - {slot.uid for slot in before}
        slots = {slot.slot for slot in new.allotment.slots.values()} - {slot.slot for slot in before}
        if uids:
            self.engine.purge(uids)
        if slots:
            self.engine.zero(slots)

    def compile(self, world: World, serial: int) -> CompiledRuleset:
        """The ruleset of `world`, not yet in force. Raises InvalidInput or Conflict when it does not fit."""
        settings = self.settings
        return compile_ruleset(
            replace(world.desired, protects=world.protects(settings.protect)),
            slots={name: SlotUid(slot.slot, slot.uid) for name, slot in world.allotment.slots.items()},
            nic_slots=world.nic_slots(),
            cpus=self.engine.cpus,
            settings=RulesetSettings(
                malformed_drop=settings.malformed == "drop",
                table_full_open=settings.table.full == "open",
                event_sample=settings.events.sample,
                event_rate=settings.events.rate,
            ),
            serial=serial,
            mono_now_ns=self.clock.mono_ns(),
            wall_now_ns=int(self.clock.wall() * 1e9),
            cache=self._cache,
            observers=world.observers,
        )

    def recover(self, world: World, serial: int, actor: Actor, target: str, detail: dict[str, Any]) -> None:
        """Make `world` that of a state that knows nothing, before start(); all or nothing."""
        self.compile(world, serial)
        with self.state.transaction() as transaction:
            self._write(transaction, world, serial, change_between(self.world.desired, world.desired))
            written = entry(self.clock.wall(), actor, "restore", target, detail)
            transaction.audit(written, self.settings.audit.keep)
        self.world = world
        self.serial = serial

    def start(self) -> None:
        """Put the world in force for the first time in this process's life."""
        compiled = self.compile(self.world, self.serial)
        self.engine.start(compiled)
        self._is_in_force(compiled)

    def publish_again(self) -> None:
        """Put the world in force as it is, when the settings were read again."""
        compiled = self.compile(self.world, self.serial)
        self.engine.publish(compiled)
        self._is_in_force(compiled)

    def follow_clock(self) -> None:
        """Put expiries right after the wall clock was set, or stood apart from the kernel's in a suspend.

        The kernel counts since boot. A clock that is set some seconds after a boot is the usual case.
        """
        apart = self._booted() - self._boot
        if abs(apart) < CLOCK_STEP_S:
            return
        log.warning("the wall clock moved by %.1f s against the time since boot: expiries set anew", apart)
        self.publish_again()

    def _booted(self) -> float:
        """The moment of boot in wall seconds, by the clocks as they are now."""
        return self.clock.wall() - self.clock.mono_ns() / 1e9

    def settle(self) -> None:
        """Purge what deleted limits left, and give their numbers back. What fails is tried again later."""
        retired = self.world.allotment.retired
        if not retired:
            return
        try:
            self.engine.purge([gone.uid for gone in retired])
            self.engine.zero([gone.slot for gone in retired if gone.slot is not None])
            after = settled(self.world.allotment, retired)
            with self.state.transaction() as transaction:
                transaction.allotment(self.world.allotment, after)
        except ValkyrieError as error:
            log.warning("buckets of %d deleted limits are not purged yet: %s", len(retired), error)
            return
        self.world = self.world.but(allotment=after)

    def note(self, actor: Actor, action: str, target: str, detail: dict[str, Any]) -> None:
        """Say in the audit log what was done that is no change of the world."""
        with self.state.transaction() as transaction:
            transaction.audit(
                entry(self.clock.wall(), actor, action, target, detail), self.settings.audit.keep
            )

    @property
    def order(self) -> Sequence[str]:
        """The limit at each position of the ruleset in force."""
        return self.compiled.order if self.compiled is not None else ()

    async def close(self) -> None:
        """Finish the changes that wait, then let go of state and maps. Again: nothing."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._thread.shutdown)
        self.engine.close()
        self.state.close()
