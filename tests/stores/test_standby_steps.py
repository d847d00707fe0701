# SPDX-License-Identifier: Apache-2.0
"""A standby against real stores: takeovers that are cut short at each step, two standbys, rival policies."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from support.servers import Server
from support.synced import APPLIANCE, DEADLINE, UNITS, WEB, Appliance
from valkyrie.adapters.migrate.note import Note, Phase
from valkyrie.adapters.migrate.plan import Record
from valkyrie.adapters.secrets import NoSecrets
from valkyrie.adapters.settings import StoreSettings
from valkyrie.control.audit import Actor
from valkyrie.control.document import from_document
from valkyrie.control.durable.document import COUNTERS
from valkyrie.control.durable.opening import make_store
from valkyrie.control.durable.role import Role
from valkyrie.control.durable.takeover import take_what_is_kept
from valkyrie.control.errors import Conflict, DataplaneError
from valkyrie.control.service.migration import Migration
from valkyrie.control.service.migration_file import MigrationFile
from valkyrie.control.service.standby import follow, take_over
from valkyrie.control.standby import Standby

ADMIN = Actor(0, "root", 42)
SHORT_S = 5.0


class Machine(Appliance):
    """An appliance with what may stand in its sync's place; its own name is that of its folder."""

    def __init__(self, folder: Path, store: StoreSettings, token: str, own_name: str) -> None:
        super().__init__(folder, store, token=token * 32, unfilled=True, machine=folder.name)
        self.core.use(
            self.core.settings.model_copy(update={"store": store.model_copy(update={"name": own_name})})
        )
        self.sync._settings = self.core.settings.store
        self.token = token * 32
        self.standby = Standby(
            self.core,
            self.tables,
            self.sync,
            lambda store, appliance: make_store(store, appliance, NoSecrets()),
            lambda kind, what: self.said.append(what),
            lambda: None,
            token=self.token,
            node=folder.name,
            machine=folder.name,
        )

    async def begin(self) -> None:
        await self.standby.prepare()
        await self.core.in_turn(self.core.start)
        await self.standby.refill()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.standby.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def role(self) -> Role:
        return self.core.role

    async def until_role(self, kind: str) -> None:
        await self.until(lambda: self.role.kind == kind, DEADLINE)

    async def die(self) -> None:
        """As by kill -9: the store is told nothing."""
        await self.standby.following.close()
        if self.sync._store is not None:
            await self.sync._store.close()
        await self.core.close()

    async def close(self) -> None:
        await self.standby.close()
        await self.core.close()


Make = Callable[..., Awaitable[Machine]]


@pytest.fixture
def store(resp_server: Server) -> StoreSettings:
    return StoreSettings.model_validate(
        {"mode": resp_server.kind, resp_server.kind: {"url": resp_server.unix_url, "timeout_ms": 500}}
    )


@pytest.fixture
async def make(tmp_path: Path, store: StoreSettings) -> AsyncIterator[Make]:
    made: dict[str, Machine] = {}

    async def again(name: str, token: str, own_name: str | None = None) -> Machine:
        """The machine of that name, after a kill -9 if it was there before."""
        if name in made:
            await made[name].die()
        made[name] = Machine(tmp_path / name, store, token, own_name or name)
        await made[name].begin()
        return made[name]

    yield again
    for machine in made.values():
        await machine.die()


async def kept_by(make: Make) -> Machine:
    """The appliance `edge` with a limit and eight buckets, a minute short of full, all in the store; dead."""
    one = await make("one", "a", APPLIANCE)
    await one.put_limits(WEB)
    one.table.fill(8, one.uid(), 0)
    one.use(range(8), 60)
    slot = one.core.world.allotment.slots["web"].slot
    one.table.limit_stats["passed"][0][slot] = 5
    one.core.engine.figures().limits["passed"][slot] = 5
    await one.turn()
    assert one.status["state"] == "ok"
    return one


async def following(make: Make, name: str = "two", token: str = "b", after_s: float | None = None) -> Machine:
    two = await make(name, token)
    await two.core.in_turn(
        lambda: two.core.take_role(ADMIN, Role("follower", APPLIANCE, after_s), "standby.follow", {})
    )
    return two


def has_taken_over(two: Machine) -> None:
    """All that belongs to a takeover is there, and once."""
    assert two.role == Role("successor", APPLIANCE)
    assert list(two.core.world.limits) == ["web"]
    assert {uid for uid, _ in two.tables.restored} == {two.uid()}
    assert all(40 * UNITS < level <= 60 * UNITS for _, level in two.tables.restored)
    slot = two.core.world.allotment.slots["web"].slot
    assert two.table.limit_stats["passed"][:, slot].sum() == 5
    assert two.core.settings.store.name == APPLIANCE
    assert not two.tables.unfilled


async def cut_before_claim(two: Machine) -> None:
    async with two.running():
        await two.until(lambda: two.role.known)


async def cut_after_claim(two: Machine) -> None:
    await cut_before_claim(two)
    store = two.make()
    await store.start()
    await store.claim("two", two.token, takeover=True)
    await store.close()


async def cut_before_the_role(two: Machine) -> None:
    await cut_after_claim(two)
    store = two.make()
    await store.start()
    await take_what_is_kept(store, two.core, two.tables, token=two.token, name=APPLIANCE, machine="two")
    await store.close()


@pytest.mark.parametrize("cut", [cut_after_claim, cut_before_the_role], ids=["claimed", "restored"])
async def test_a_takeover_that_was_killed_is_finished_by_the_next_start(make: Make, cut: Any) -> None:
    await kept_by(make)
    two = await following(make)
    await cut(two)
    before = two.table
    two = await make("two", "b")
    assert two.role == Role("follower", APPLIANCE, None, known=True)
    two.table.limit_stats[:] = before.limit_stats  # the kernel's, which outlive the daemon
    async with two.running():
        await two.until_role("successor")
        has_taken_over(two)
        await two.until(lambda: two.status["state"] == "ok")


async def test_a_follower_that_was_killed_before_the_claim_is_a_follower_that_enforces_the_same(
    make: Make,
) -> None:
    await kept_by(make)
    await cut_before_claim(await following(make))
    two = await make("two", "b")
    assert two.role == Role("follower", APPLIANCE, None, known=True)
    assert list(two.core.world.limits) == ["web"]
    with pytest.raises(Conflict, match="follows edge"):
        await two.core.change(ADMIN, "apply", "", {}, lambda world: world.but(desired=from_document({})))


async def test_a_follower_that_was_killed_while_following_anew_has_its_old_policy_and_begins_again(
    make: Make,
) -> None:
    await kept_by(make)
    two = await make("two", "b")
    await two.put_limits(WEB | {"name": "mine"})
    await follow(two.standby, ADMIN, APPLIANCE, None, wait=False)  # nothing runs: killed after the role
    two = await make("two", "b")
    assert list(two.core.world.limits) == ["mine"]
    assert (two.core.settings.state_dir / "policy-before-standby.json").exists()
    async with two.running():
        await two.until(lambda: list(two.core.world.limits) == ["web"])


async def test_a_takeover_whose_table_fails_is_tried_again_and_is_never_half_done(make: Make) -> None:
    await kept_by(make)
    two = await following(make)
    works, two.tables.restore = two.tables.restore, _refused  # type: ignore[method-assign, assignment]
    async with two.running():
        await two.until(lambda: two.role.known)
        with pytest.raises(DataplaneError):
            await take_over(two.standby, ADMIN, force=True)
        assert two.role.follows
        two.tables.restore = works  # type: ignore[method-assign]
        await two.until_role("successor")
    has_taken_over(two)


def _refused(*_: Any) -> int:
    raise DataplaneError("the maps are gone", "start again")


async def test_of_two_standbys_one_wins_and_the_other_goes_on_following(make: Make) -> None:
    await kept_by(make)
    both = [await following(make, name, token, SHORT_S) for name, token in (("two", "b"), ("three", "c"))]
    began = time.monotonic()
    async with both[0].running(), both[1].running():
        while not any(one.role.kind == "successor" for one in both):
            assert time.monotonic() - began < DEADLINE
            await asyncio.sleep(0.05)
        (winner,) = [one for one in both if one.role.kind == "successor"]
        (other,) = [one for one in both if one is not winner]
        has_taken_over(winner)
        await other.until(lambda: other.standby.told()["active"] == winner.core.settings.state_dir.name)
        await asyncio.sleep(SHORT_S + 1)  # as long as it would take to take the winner for silent
        assert other.role.follows
        assert winner.status["state"] == "ok"
        await winner.put_limits(WEB, WEB | {"name": "more"})
        await other.until(lambda: list(other.core.world.limits) == ["more", "web"])


async def test_an_active_one_is_not_taken_over_without_force(make: Make) -> None:
    one, two = await kept_by(make), await following(make)
    async with one.running(), two.running():
        await two.until(lambda: two.role.known)
        with pytest.raises(Conflict, match="one is active as edge"):
            await take_over(two.standby, ADMIN, force=False)
        assert two.role.follows
        await take_over(two.standby, ADMIN, force=True)
        await one.until(lambda: one.status["state"] == "refused")
        assert any("standby follow edge" in line for line in one.said)


async def test_a_policy_of_another_machine_is_not_written_over_by_one_that_was_away(make: Make) -> None:
    one, two = await kept_by(make), await following(make)
    async with two.running():
        await two.until(lambda: two.role.known)
        await take_over(two.standby, ADMIN, force=True)
        await two.until(lambda: two.status["state"] == "ok")
        await two.put_limits(WEB | {"rate": "9/h"})
        await two.until(lambda: two.sync._documents._serial == two.core.serial)
    await two.sync.close()  # the name is free
    one = await make("one", "a", APPLIANCE)
    await one.turn()
    assert one.status["state"] == "refused"
    assert "another machine has written a policy under the name edge" in one.status["problem"]
    await follow(one.standby, ADMIN, APPLIANCE, None, wait=False)
    async with one.running():
        await one.until(lambda: one.core.world.limits["web"].rate == "9/h")
        assert (await take_over(one.standby, ADMIN, force=False))["role"] == "own"
        await one.until(lambda: one.status["state"] == "ok")


async def test_damaged_counters_in_the_store_keep_nobody_from_taking_over(make: Make) -> None:
    one = await kept_by(make)
    damaging = one.make()
    await damaging.start()
    await damaging.put_document(COUNTERS, b"nonsense", one.token)
    await damaging.close()
    two = await following(make)
    async with two.running():
        await two.until(lambda: two.role.known)
        await take_over(two.standby, ADMIN, force=True)
        assert two.role.kind == "successor"
        assert len(two.tables.restored) == 8


async def test_a_follower_starts_no_migration(make: Make) -> None:
    await kept_by(make)
    two = await following(make)
    migration = Migration(two.core, NoSecrets(), lambda kind, what: None)
    with pytest.raises(Conflict, match="follows edge"):
        await migration.start(ADMIN, two.standby.backend, "embedded", overwrite=False)
    assert migration.status()["phase"] == "none"


async def test_who_begins_to_follow_while_a_migration_begins_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kept_by(make)
    two = await make("two", "b")
    looked, is_kept = asyncio.Event(), two.standby.following.is_kept

    async def slow(name: str) -> bool:
        found = await is_kept(name)
        looked.set()
        await begun.wait()
        return found

    begun = asyncio.Event()
    monkeypatch.setattr(two.standby.following, "is_kept", slow)
    call = asyncio.create_task(follow(two.standby, ADMIN, APPLIANCE, None, wait=False))
    async with asyncio.timeout(DEADLINE):
        await looked.wait()
        await Migration(two.core, NoSecrets(), lambda kind, what: None).start(
            ADMIN, two.standby.backend, "embedded", overwrite=False
        )
        begun.set()
        with pytest.raises(Conflict, match="being migrated"):
            await call
    assert two.role.kind == "own"


@pytest.mark.parametrize("phase", ["cleaning", "aborting"])
async def test_nobody_follows_while_what_a_migration_left_is_emptied(make: Make, phase: Phase) -> None:
    await kept_by(make)
    two = await make("two", "b")
    backend = two.standby.backend
    source, target = ("embedded", backend) if phase == "cleaning" else (backend, "embedded")
    note = Note(1, 4, source, target, phase)
    MigrationFile(two.core.settings.state_dir / "migration.json").keep(Record(note, copied=True, seen=True))
    Migration(two.core, NoSecrets(), lambda kind, what: None)
    assert two.core.route is None, "the settings name the store that remains"
    with pytest.raises(Conflict, match="being migrated"):
        await follow(two.standby, ADMIN, APPLIANCE, None, wait=False)


async def test_a_damaged_policy_in_the_store_leaves_what_was_had_and_a_takeover_mends_it(make: Make) -> None:
    one, two = await kept_by(make), await following(make)
    async with two.running():
        await two.until(lambda: two.role.known)
        store = one.make()
        await store.start()
        await store.put_document("state", b"nonsense", one.token)
        await two.until(lambda: "damaged" in two.standby.told()["problem"])
        assert list(two.core.world.limits) == ["web"]
        await take_over(two.standby, ADMIN, force=True)
        assert await store.get_document("state") != b"nonsense"
        await store.close()
    has_taken_over(two)
