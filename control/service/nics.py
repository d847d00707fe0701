# SPDX-License-Identifier: Apache-2.0
"""Operations on NICs: attach, confirm, detach, and putting back what is missing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from valkyrie.control.audit import DAEMON, Actor
from valkyrie.control.errors import NotFound, StateError, ValkyrieError
from valkyrie.control.notes import Kind, Tell
from valkyrie.control.prefix import canonical_prefix
from valkyrie.control.service.core import Core
from valkyrie.control.service.engine import Attached
from valkyrie.control.service.nic_words import called, check_name, confirm_seconds, stray
from valkyrie.control.service.world import World
from valkyrie.control.state.nics import Nic, free_slot

log = logging.getLogger(__name__)

AWAY = "away"


class Nics:
    """`tell(kind, what)` shows a note to those who follow the events."""

    def __init__(self, core: Core, tell: Tell) -> None:
        self._core = core
        self._tell = tell
        self._failing: dict[str, str] = {}
        self._renamed: dict[str, str] = {}  # what NICs that still carry the program are called now
        # Detached, though the state could not be told.
        self._off: set[str] = set()
        # Of trials: the deadline, and what the clock since boot will show then.
        self._ends: dict[str, tuple[float, float]] = {}

    async def attach(
        self, actor: Actor, name: str, *, mode: str, confirm: str | None, replacing: bool, protect: list[str]
    ) -> dict[str, Any]:
        """Attach, and answer with the mode in force. What is attached gets another mode, trial or protects.

        Raises NotFound without such a NIC, Foreign when somebody else's program is there, InvalidInput,
        DataplaneError; then the NIC is as it was.
        """
        check_name(name)
        seconds = confirm_seconds(confirm)
        prefixes = tuple(sorted({canonical_prefix(prefix) for prefix in protect}))
        detail = {"mode": mode, "confirm": confirm, "replace": replacing, "protect": list(prefixes)}

        def work() -> Attached:
            deadline = None if seconds is None else self._core.clock.wall() + seconds
            before = self._core.world.nics.get(name)

            def update(world: World) -> World:
                slot = before.slot if before else free_slot(dict(world.nics))
                return _with(world, Nic(name, slot, mode, prefixes, seconds, deadline))

            # The row comes first: a daemon killed in between finishes what it finds, trial included,
            # and no packet meets the program before the protected addresses are in its ruleset.
            world = self._core.make(actor, "attach", name, detail, update)
            self._off.discard(name)
            try:
                return self._core.engine.attach(
                    name, slot=world.nics[name].slot, mode=mode, replace=replacing
                )
            except BaseException as error:
                failure = {"error": str(error)[:512]}
                self._core.make(
                    DAEMON, "attach.failed", name, failure, lambda now: _restored(now, name, before)
                )
                raise

        attached = await self._core.in_turn(work)
        self._core.changed.set()
        self._failing.pop(name, None)
        self.say("attach", f"{name}: attached in {attached.mode} mode")
        return {**self._shown(name, {name: attached.mode}), "note": attached.note}

    async def confirm(self, actor: Actor, name: str) -> dict[str, Any]:
        """Keep an attachment that is on trial. Raises NotFound."""

        def update(world: World) -> World:
            nic = _known(world, name)
            return world if nic.deadline is None else _with(world, replace(nic, confirm=None, deadline=None))

        await self._core.change(actor, "confirm", name, {}, update)
        return self._shown(name, await asyncio.to_thread(self._core.engine.attached))

    async def detach(self, actor: Actor, name: str) -> dict[str, Any]:
        """Take the program off. Raises NotFound when the NIC is not one of ours."""
        check_name(name)
        await self._core.in_turn(lambda: self._detach(actor, name, "detach"))
        self._core.changed.set()
        self.say("detach", f"{name}: detached")
        return {"nic": name, "attached": False}

    def _detach(self, actor: Actor, name: str, action: str) -> None:
        """In the thread of changes. Forgotten first: a daemon killed in between detaches it at start.

        A full disk does not keep the program on: it is taken off, and StateError says what is not written.
        """
        holders = self._core.engine.holders()
        if name not in self._core.world.nics and name in self._core.engine.carriers():
            self._detach_stray(actor, name, holders)
            return
        holder = holders.get(_known(self._core.world, name).slot, name)
        try:
            self._core.make(actor, action, name, {}, lambda world: _restored(world, name, None))
        except StateError as error:
            self._off.add(name)
            with contextlib.suppress(NotFound):
                self._core.engine.detach(holder)
            raise StateError(
                f"{name} is detached, but that could not be written: {error.what}",
                f"a restarted daemon attaches it again, so mend this and detach once more: {error.hint}",
            ) from error
        self._off.discard(name)
        self._failing.pop(name, None)
        self._renamed.pop(name, None)
        self._ends.pop(name, None)
        with contextlib.suppress(NotFound):  # it went away, and the program with it
            self._core.engine.detach(holder)

    def _detach_stray(self, actor: Actor, name: str, holders: Mapping[int, str]) -> None:
        """A NIC that was renamed and whose place another has taken, or that is attached by another name."""
        for nic in self._core.world.nics.values():
            if holders.get(nic.slot) == name:
                raise NotFound(f"{name} is attached as {nic.name}", f"valkyrie-ctl detach {nic.name}")
        self._core.engine.detach(name)
        self._core.note(actor, "detach", name, {})

    async def expire(self) -> list[str]:
        """Detach what was not confirmed in time; those that were.

        One that cannot be detached keeps no other from it: what failed first is raised at the end.
        """

        def work() -> tuple[list[str], list[ValkyrieError]]:
            late = [name for name, nic in self._core.world.nics.items() if self._left(nic) == 0]
            failed: list[ValkyrieError] = []
            for name in late:
                try:
                    # From the kernel first: a full disk must not keep anybody locked out.
                    with contextlib.suppress(NotFound):
                        self._core.engine.detach(name)
                    self._detach(DAEMON, name, "detach.unconfirmed")
                except ValkyrieError as error:
                    failed.append(error)
            return [name for name in late if name not in self._core.world.nics], failed

        done, failed = await self._core.in_turn(work)
        for name in done:
            self.say("detach", f"{name}: not confirmed in time, so detached")
        if failed:
            raise failed[0]
        return done

    def next_deadline(self) -> float | None:
        """Seconds until the next trial ends."""
        left = [self._left(nic) for nic in self._core.world.nics.values()]
        return min((seconds for seconds in left if seconds is not None), default=None)

    def _left(self, nic: Nic) -> float | None:
        """Seconds until it is detached; None: it stays. Setting the wall clock neither prolongs a trial
        nor cuts it short: it is asked once, when this daemon first looks.
        """
        if nic.deadline is None:
            return None
        now = self._core.clock.mono_ns() / 1e9
        deadline, end = self._ends.get(nic.name, (None, 0.0))
        if deadline != nic.deadline:
            end = now + (nic.remaining(self._core.clock.wall()) or 0.0)
            self._ends[nic.name] = (nic.deadline, end)
        return max(0.0, end - now)

    @property
    def troubled(self) -> bool:
        """Whether a NIC is there and could not be given its program."""
        return any(problem != AWAY for problem in self._failing.values())

    def is_away(self, name: str) -> bool:
        """Whether the NIC was not there under its name when it was last looked for."""
        return self._failing.get(name) == AWAY

    async def restore(self, *, strays: bool = False) -> list[str]:
        """Attach again what should be attached and is not. NICs that are away stay wanted.

        `strays`, at start: also take off what a detach that was cut short has left. What cannot
        be attached is said once until it changes.
        """
        done = await self._core.in_turn(
            lambda: [*(self._take_off_strays() if strays else ()), *self._restore()]
        )
        for line in done:
            self.say("link", line)
        return done

    def _take_off_strays(self) -> list[str]:
        strays = set(self._core.engine.carriers()) - self._core.world.nics.keys()
        if strays:
            holders = self._core.engine.holders()
            strays -= {holders.get(nic.slot, "") for nic in self._core.world.nics.values()}
        for name in strays:
            self._core.engine.detach(name)
        return [f"{name}: detached, as asked before the daemon was stopped" for name in sorted(strays)]

    def _restore(self) -> list[str]:
        done: list[str] = []
        for name, nic in self._core.world.nics.items():
            if self._left(nic) == 0 or name in self._off:
                continue
            try:
                put_back = self._core.engine.adopt(name, slot=nic.slot, mode=nic.mode)
            except NotFound:
                done += self._missing(nic)
                continue
            except ValkyrieError as error:
                if self._failing.get(name) != error.what:
                    self._failing[name] = error.what
                    done.append(f"{name}: cannot be attached: {error}")
                continue
            self._failing.pop(name, None)
            self._renamed.pop(name, None)
            if put_back is not None:
                done.append(f"{name}: attached again, in {put_back.mode} mode")
        return done

    def _missing(self, nic: Nic) -> list[str]:
        """What is to be said of a NIC that is not there under its name."""
        holder = self._core.engine.holders().get(nic.slot)
        known = self._failing.get(nic.name) == AWAY and self._renamed.get(nic.name) == holder
        self._failing[nic.name] = AWAY
        if holder is None:
            self._renamed.pop(nic.name, None)
            return [] if known else [f"{nic.name}: not there; it will be attached when it comes"]
        self._renamed[nic.name] = holder
        return [] if known else [f"{nic.name}: {called(holder)}"]

    async def list(self) -> list[dict[str, Any]]:
        attached = await asyncio.to_thread(self._core.engine.attached)
        known = {*self._core.world.nics, *self._renamed.values()}
        strays = sorted(attached.keys() - known)
        return [
            *(self._shown(name, attached) for name in self._core.world.nics),
            *(stray(name, attached[name]) for name in strays),
        ]

    def _shown(self, name: str, attached: Any) -> dict[str, Any]:
        nic = self._core.world.nics[name]
        holder = name if name in attached else self._renamed.get(name, name)
        problem = "" if name in attached and self.is_away(name) else self._failing.get(name, "")
        return {
            "nic": name,
            "attached": holder in attached,
            "mode": attached.get(holder, ""),
            "wanted_mode": nic.mode,
            "protect": list(nic.protect),
            "confirm_left_s": self._left(nic),
            "problem": called(holder) if holder != name else problem,
        }

    def say(self, kind: Kind, what: str) -> None:
        log.info("%s", what)
        self._tell(kind, what)


def _known(world: World, name: str) -> Nic:
    if name not in world.nics:
        raise NotFound(f"{name[:40]} is not attached", "valkyrie-ctl status shows what is")
    return world.nics[name]


def _with(world: World, nic: Nic) -> World:
    return world.but(nics={**world.nics, nic.name: nic})


def _restored(world: World, name: str, before: Nic | None) -> World:
    nics = {other: nic for other, nic in world.nics.items() if other != name}
    if before is not None:
        nics[name] = before
    return world.but(nics=nics)
