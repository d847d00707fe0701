# SPDX-License-Identifier: Apache-2.0
"""A standby: it follows another appliance in the store that both reach, and takes over when that is silent.

While it follows, this appliance writes nothing to the store. It polices the NICs that its own state names
by the limits of the other one; buckets are read at takeover. What it is lies in the state as a Role, written
when all that belongs to it is done: a takeover that was cut short leaves a follower that finds its own token
at the name, and finishes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from valkyrie.adapters.errors import ConsistencyError
from valkyrie.adapters.naming import appliance_of
from valkyrie.adapters.secrets import Secrets
from valkyrie.adapters.settings import StoreSettings
from valkyrie.control.audit import DAEMON, Actor
from valkyrie.control.durable.document import Kept
from valkyrie.control.durable.following import SILENT_S, Following
from valkyrie.control.durable.identity import machine, token_of
from valkyrie.control.durable.lack import Tables
from valkyrie.control.durable.opening import Opened, backend_of, make_store
from valkyrie.control.durable.restore import Restored
from valkyrie.control.durable.role import Role
from valkyrie.control.durable.takeover import take_policy, take_what_is_kept
from valkyrie.control.errors import ValkyrieError
from valkyrie.control.limits import Desired
from valkyrie.control.notes import Tell
from valkyrie.control.service.core import Core
from valkyrie.control.sync import Sync, make_sync

log = logging.getLogger(__name__)

POLL_S = 0.5  # between two looks at who is active
BEGIN_S = 5.0  # in which the first look of a follower is awaited
ASIDE = "policy-before-standby.json"


class Standby:
    """The Keeping of an appliance that may follow another: it runs the sync while it follows nobody.

    `moved()` is called when the name in the stores has changed; `token` is the one that `sync` claims with.
    What people command (service/standby.py) happens between two looks, under `turn`.
    """

    def __init__(
        self,
        core: Core,
        tables: Tables,
        sync: Sync,
        make: Callable[[StoreSettings, str], Opened],
        tell: Tell,
        moved: Callable[[], None],
        *,
        token: str,
        node: str,
        machine: str,
    ) -> None:
        self.core = core
        self._tables = tables
        self._sync = sync
        self._tell = tell
        self._moved = moved
        self.token = token
        self.node = node
        self._machine = machine
        self.following = Following(core, make, token)
        self._problem = ""
        self._restored: tuple[Restored, float] | None = None  # with the seconds that it took
        self.turn = asyncio.Lock()  # a look, or a person's command
        self._changed = asyncio.Event()
        self._looked = asyncio.Event()

    async def prepare(self) -> None:
        """As Keeping has it. A follower enforces what it last had; its loop asks for more."""
        if not self.role.follows:
            await self._sync.prepare()

    async def refill(self) -> None:
        if not self.role.follows:
            await self._sync.refill()

    async def close(self) -> None:
        if not self.role.follows:
            await self._sync.close()
        await self.following.close()

    async def run(self) -> None:
        """For ever: the sync, or the looks of a follower. Cancel it, then close()."""
        while True:
            self._changed.clear()
            if not self.role.follows:
                await self._keep_in_sync()
                continue
            async with self.turn:
                await self._look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._changed.wait()

    @property
    def role(self) -> Role:
        return self.core.role

    @property
    def own_name(self) -> str:
        return appliance_of(self.core.given.store.name, self.node)

    @property
    def backend(self) -> str:
        return backend_of(self.core.settings.store)

    async def _keep_in_sync(self) -> None:
        """Until the role changes. Then the last round is written and the name let go."""
        work = asyncio.create_task(self._sync.run())
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({work, changed}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            work.cancel()
            changed.cancel()
            await asyncio.gather(work, changed, return_exceptions=True)
        await self._sync.pause()

    async def _look(self) -> None:
        role = self.role
        if not role.follows:
            return
        try:
            store = await self.following.look(role.name)
            kept = await self.following.policy(store)
            if kept is not None:
                await self._enforce(kept, role)
            await self._act(store, self.role)
            self._say_problem(self.following.damage)
        except ConsistencyError as error:
            self._say_problem(str(error))
        except ValkyrieError as error:
            self.following.watch.lost()
            self._say_problem(str(error))
        self._looked.set()

    async def _act(self, store: Opened, role: Role) -> None:
        watch, now = self.following.watch, time.monotonic()
        verdict, silent = watch.verdict(role, now), watch.silent_s(now)
        if verdict == "wait":
            return
        if verdict == "claim":
            self.say(f"{role.name} has been silent for {silent:.1f} s: taking over", logging.WARNING)
            # The store checks it once more: another standby, or the other itself, may have been faster.
            await store.claim(self.node, self.token, silent_s=role.after_s or SILENT_S)
        await self.become(store, role, DAEMON, {"silent_s": round(silent, 1), "forced": False})

    async def _enforce(self, kept: Kept, role: Role) -> None:
        if await take_policy(self.core, kept):
            self.say(f"the limits are those of {role.name} now: {_counts(kept.desired)}")
        if not role.known:
            known = Role(role.kind, role.name, role.after_s, known=True)
            await self.take_role(DAEMON, known, "standby.known", {"serial": kept.serial})
        self.following.taken()

    async def become(self, store: Opened, role: Role, actor: Actor, detail: dict[str, Any]) -> None:
        """We own the name: take what is kept under it, then work as it."""
        began = time.monotonic()
        restored = await take_what_is_kept(
            store, self.core, self._tables, token=self.token, name=role.name, machine=self._machine
        )
        took = time.monotonic() - began
        become = Role() if role.name == self.own_name else Role("successor", role.name)
        detail |= {"buckets": restored.placed, "took_s": round(took, 3), "name": role.name}
        await self.take_role(actor, become, "standby.take-over", detail)
        self._restored = restored, took
        self._problem = ""
        self.say(
            f"this appliance has taken over {role.name}: {restored.placed} of {restored.read} buckets "
            f"restored in {took:.1f} s, {_counts(self.core.world.desired)}",
            logging.WARNING,
        )
        await self.following.close()
        self.begin()

    async def looked(self) -> None:
        """When a follower has looked for the first time, or BEGIN_S are over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_S):
                await self._looked.wait()

    async def take_role(self, actor: Actor, role: Role, action: str, detail: dict[str, Any]) -> None:
        await self.core.in_turn(lambda: self.core.take_role(actor, role, action, detail))

    def begin(self) -> None:
        """What goes with a changed role."""
        self._problem = ""
        self._sync.role_changed()
        self._looked.clear()
        self._moved()
        self._changed.set()

    @property
    def aside(self) -> Path:
        """Where the policy from before is put."""
        return self.core.settings.state_dir / ASIDE

    def owns(self, name: str) -> bool:
        """Whether this appliance is the active one of that name."""
        sync = self._sync.status()
        return not self.role.follows and bool(sync["owner"]) and sync["name"] == name

    def status(self) -> dict[str, Any]:
        """That of the sync, and `standby`; a follower's `state` is `following`."""
        found = self._sync.status()
        if self.role.follows:
            found |= {"state": "following", "store": self.backend, "name": self.role.name, "owner": False}
            found |= {"epoch": None, "problem": self._problem, "owed": 0}
        return {**found, "standby": self.told()}

    def told(self) -> dict[str, Any]:
        """For people. `name` is whom it follows or has taken the place of."""
        role, now = self.role, time.monotonic()
        following = self.following
        owner = following.watch.owner
        restored = self._restored
        return {
            "role": role.kind,
            "name": role.name,
            "own_name": self.own_name,
            "after_s": role.after_s,
            "active": None if owner is None else owner.node,
            "heard_s": None if owner is None else owner.silent_s,
            "sees_store": following.watch.sees if role.follows else None,
            "policy_age_s": None if following.had is None else now - following.had,
            "fenced": not role.follows and self._sync.fenced,
            "problem": self._problem,
            "aside": str(self.aside) if self.aside.exists() else None,
            "restored": None if restored is None else restored[0].placed,
            "restored_s": None if restored is None else restored[1],
        }

    def _say_problem(self, problem: str) -> None:
        """Once until it changes; how long ago something was is no change."""
        if problem and not self._problem:
            self.say(f"following {self.role.name}: {problem}", logging.WARNING)
        elif self._problem and not problem and self.role.follows:
            self.say(f"following {self.role.name} again")
        self._problem = problem

    def say(self, what: str, level: int = logging.INFO) -> None:
        log.log(level, "%s", what)
        self._tell("standby", what)


def _counts(desired: Desired) -> str:
    return (
        f"{len(desired.limits)} limits, {len(desired.overrides)} overrides, {len(desired.exempts)} exempts, "
        f"{len(desired.bans)} bans"
    )


def make_standby(
    core: Core,
    tables: Tables,
    tell: Tell,
    moved: Callable[[], None],
    secrets: Secrets,
    random_bytes: Callable[[int], bytes],
) -> Standby | None:
    """The sync that the settings ask for, with what may stand in its place; None if they ask for none. Raises
    StateError.
    """
    sync = make_sync(core, tables, tell, secrets, random_bytes)
    if sync is None:
        return None
    here = machine()
    return Standby(
        core,
        tables,
        sync,
        lambda store, appliance: make_store(store, appliance, secrets),
        tell,
        moved,
        token=token_of(core.settings.state_dir / "sync.token", here, random_bytes),
        node=socket.gethostname(),
        machine=here,
    )
