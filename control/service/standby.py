# SPDX-License-Identifier: Apache-2.0
"""What people tell a standby: follow that one, take over, be none any more."""

from __future__ import annotations

import asyncio
from typing import Any

from valkyrie.adapters.durable import Owner
from valkyrie.adapters.errors import StoreError
from valkyrie.adapters.settings import APPLIANCE
from valkyrie.control.audit import Actor
from valkyrie.control.durable.document import STATE
from valkyrie.control.durable.following import SILENT_S, put_aside
from valkyrie.control.durable.role import Role
from valkyrie.control.errors import Conflict, InvalidInput, NotFound
from valkyrie.control.standby import Standby

SHORTEST_S, LONGEST_S = 5.0, 3600.0  # of silence; an active appliance is heard of each two seconds


async def follow(
    standby: Standby, actor: Actor, name: str, after_s: float | None, *, wait: bool
) -> dict[str, Any]:
    """Follow the appliance `name`; without `after_s` take over only when told to. `wait`: though it has
    written nothing yet. Raises InvalidInput, Conflict, NotFound, StoreError, StateError; then nothing has
    changed.
    """
    _check_follow(name, after_s)
    async with standby.turn:
        _check_place(standby, name)
        if not await standby.following.is_kept(name) and not wait:
            raise NotFound(
                f"no appliance {name} keeps its state in the store {standby.backend}",
                "`valkyrie-ctl store status` there shows its name; --wait waits for one to come",
            )
        if standby.role.kind == "own":
            await asyncio.to_thread(put_aside, standby.aside, standby.core.world.desired)
        _check_migration(standby)  # again: one may have begun. It looks at the role in the turn after ours
        detail = {"after_s": after_s, "wait": wait}
        await standby.take_role(actor, Role("follower", name, after_s), "standby.follow", detail)
        await standby.following.close()
        standby.begin()
        how = "when told to" if after_s is None else f"after {after_s:g} s of silence"
        standby.say(f"this appliance follows {name}, and takes over {how}")
    await standby.looked()
    return standby.told()


async def take_over(standby: Standby, actor: Actor, *, force: bool) -> dict[str, Any]:
    """Be the active one. Raises Conflict unless a follower, and when the other is alive and `force` is not
    given; ConsistencyError when a third one was faster. After a StoreError, DataplaneError or StateError the
    standby itself finishes what was begun.
    """
    async with standby.turn:
        role = standby.role
        if not role.follows:
            raise Conflict("this appliance follows nobody", "valkyrie-ctl standby follow NAME comes first")
        store = await standby.following.open(role.name)
        owner = await store.owner()
        if not role.known and await store.get_document(STATE) is None:
            raise NotFound(f"{role.name} has never kept any state", "wait for it, or `standby end`")
        _check_silence(role, owner, standby.token, force=force)
        patience = role.after_s or SILENT_S
        await store.claim(standby.node, standby.token, takeover=force, silent_s=patience)
        silent = None if owner is None else round(owner.silent_s, 1)
        await standby.become(store, role, actor, {"silent_s": silent, "forced": force})
    return standby.told()


async def end(standby: Standby, actor: Actor) -> dict[str, Any]:
    """Work under the own name, with the policy as it is. Raises Conflict, StateError."""
    async with standby.turn:
        role = standby.role
        if role.kind == "own":
            raise Conflict("this appliance is no standby", "valkyrie-ctl standby status")
        if role.follows and role.name == standby.own_name:
            await _check_own_name(standby, role)
        await standby.take_role(actor, Role(), "standby.end", {"name": role.name, "was": role.kind})
        await standby.following.close()
        standby.begin()
        standby.say(f"this appliance is no standby of {role.name} any more: it keeps the limits as its own")
    return standby.told()


def _check_place(standby: Standby, name: str) -> None:
    """Raises Conflict where this appliance cannot follow."""
    if standby.backend == "embedded":
        raise Conflict(
            "the embedded store is this host's alone: there is nobody to follow in it",
            "set store.mode to a server that both appliances reach (docs/standby.md)",
        )
    _check_migration(standby)
    if standby.owns(name):
        raise Conflict(
            f"this appliance is the active {name}: it cannot follow itself",
            "to hand over: stop valkyried here, and `valkyrie-ctl standby take-over` on the one that follows",
        )


def _check_migration(standby: Standby) -> None:
    """Raises Conflict while there is one, in whatever phase: it writes to both stores for this appliance."""
    if standby.core.migrating:
        raise Conflict(
            "the store is being migrated",
            "end that first: valkyrie-ctl store migrate status shows where it is",
        )


async def _check_own_name(standby: Standby, role: Role) -> None:
    """Raises Conflict while another is active under the name that would be ours again. If the store is away,
    it refuses what we write when it is back.
    """
    try:
        owner = await (await standby.following.open(role.name)).owner()
    except StoreError:
        return
    if owner is not None and owner.token != standby.token and owner.silent_s < SILENT_S:
        raise Conflict(
            f"{owner.node} is active as {role.name}, which is this appliance's own name too",
            "`valkyrie-ctl standby take-over --force` takes it back; or set another store.name and reload",
        )


def _check_follow(name: str, after_s: float | None) -> None:
    """Raises InvalidInput."""
    if not APPLIANCE.fullmatch(name):
        raise InvalidInput(
            f"{name[:64]!r} is no appliance's name", "`valkyrie-ctl store status` there shows it", "name"
        )
    if after_s is not None and not SHORTEST_S <= after_s <= LONGEST_S:
        raise InvalidInput(
            f"taking over after {after_s:g} s is out of range",
            f"from {SHORTEST_S:g}s to {LONGEST_S / 3600:g}h, as 10s",
            "after",
        )


def _check_silence(role: Role, owner: Owner | None, token: str, *, force: bool) -> None:
    """Raises Conflict when the other is alive; the store looks again at the claim itself."""
    if force or owner is None or owner.token == token or owner.silent_s >= (role.after_s or SILENT_S):
        return
    raise Conflict(
        f"{owner.node} is active as {role.name}: heard of {owner.silent_s:.1f} s ago",
        "stop valkyried there, which lets go of the name; or take over with --force",
    )
