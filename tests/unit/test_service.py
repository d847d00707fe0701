# SPDX-License-Identifier: Apache-2.0
"""The service over a real state and a data plane in memory: a change happens wholly or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from support.fake_engine import FakeEngine, refused
from valkyrie.control.audit import Actor
from valkyrie.control.config import Settings
from valkyrie.control.errors import Conflict, DataplaneError, Foreign, InvalidInput, NotFound, StateError
from valkyrie.control.service.clock import Clock
from valkyrie.control.service.events import QUEUE, Hub
from valkyrie.control.service.service import Service
from valkyrie.control.state.store import State

ADMIN = Actor(0, "root", 42)
WEB = {"match": "proto tcp dport 80,443", "key": "src", "rate": "1000/s", "burst": "2000", "action": "drop"}


class Time:
    """Wall and boot time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.set_by = 0.0  # what somebody moved the wall clock

    def clock(self) -> Clock:
        return Clock(wall=lambda: self.now + self.set_by, mono_ns=lambda: int(self.now * 1e9))


class Bench:
    """A service that can be stopped hard and started again on the same state."""

    def __init__(self, folder: Path, *links: str) -> None:
        self.folder = folder
        self.time = Time()
        self.engine = FakeEngine(*links)
        self.settings = Settings(state_dir=folder, protect=("192.0.2.254",))
        self.service = self._make()

    def _make(self) -> Service:
        state = State.open(self.settings.database, bytes)
        return Service(self.settings, state, self.engine, self.time.clock())

    async def again(self) -> Service:
        """Another daemon on the same state and the same kernel."""
        await self.service.close()
        self.engine.fail.clear()
        self.service = self._make()
        await self.service.start()
        return self.service

    def stored(self) -> Any:
        return self.service.core.state.desired()


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path, "eth1", "eth2")
    await made.service.start()
    yield made
    await made.service.close()


async def test_a_limit_is_enforced_shown_and_there_after_a_restart(bench: Bench) -> None:
    shown = await bench.service.limits.put(ADMIN, "web", WEB)
    assert shown["name"] == "web"
    assert shown["counters"]["dropped"] == 0
    assert bench.engine.in_force.order == ["web"]
    service = await bench.again()
    assert service.limits.show("web") == shown
    assert bench.engine.in_force.order == ["web"]


async def test_the_same_limit_again_changes_nothing(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    published = len(bench.engine.published)
    await bench.service.limits.put(ADMIN, "web", {**WEB, "match": "dport 443,80 proto tcp"})
    assert len(bench.engine.published) == published


async def test_a_changed_rate_keeps_slot_and_buckets(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    before = bench.service.core.world.allotment.slots["web"]
    await bench.service.limits.put(ADMIN, "web", {**WEB, "rate": "5/s"})
    assert bench.service.core.world.allotment.slots["web"] == before
    assert bench.engine.purged == []


async def test_debts_are_cut_to_what_the_plans_in_force_let_a_sender_wait(bench: Bench) -> None:
    """Units are 1/64 ns: 2000 at 1000/s are two seconds."""
    second = 64 * 10**9
    await bench.service.limits.put(ADMIN, "web", {**WEB, "rate": "1000/h"})
    uid = bench.service.core.world.allotment.slots["web"].uid
    await bench.service.limits.put(ADMIN, "web", WEB)
    assert bench.engine.capped == [(uid, 2 * second)]
    await bench.service.limits.put_overrides(
        ADMIN, "web", [{"prefix": "10.0.0.1", "rate": "1/s", "burst": "9"}]
    )
    await bench.service.limits.put(ADMIN, "web", {**WEB, "rate": "2000/s"})
    assert len(bench.engine.capped) == 1
    await bench.service.limits.delete_override(ADMIN, "web", "10.0.0.1")
    assert bench.engine.capped[1:] == [(uid, second)]


async def test_another_key_purges_the_old_buckets(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    before = bench.service.core.world.allotment.slots["web"]
    await bench.service.limits.put(ADMIN, "web", {**WEB, "key": "dst"})
    assert bench.engine.purged == [before.uid]
    assert bench.engine.zeroed == []


async def test_deleting_a_limit_purges_zeroes_and_forgets(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.limits.put_overrides(ADMIN, "web", [{"prefix": "203.0.113.0/24", "rate": "5/s"}])
    slot = bench.service.core.world.allotment.slots["web"]
    await bench.service.limits.delete(ADMIN, "web")
    assert bench.engine.in_force.order == []
    assert (bench.engine.purged, bench.engine.zeroed) == ([slot.uid], [slot.slot])
    assert bench.stored().limits == ()
    assert bench.stored().overrides == ()
    with pytest.raises(NotFound):
        bench.service.limits.show("web")


async def test_a_purge_that_fails_is_made_up_for_after_a_restart(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    uid = bench.service.core.world.allotment.slots["web"].uid
    bench.engine.fail["purge"] = refused()
    await bench.service.limits.delete(ADMIN, "web")
    await bench.service.limits.put(ADMIN, "web", WEB)
    assert bench.service.core.world.allotment.slots["web"].uid != uid
    await bench.again()
    assert bench.engine.purged == [uid]
    assert bench.service.core.world.allotment.retired == ()


async def test_when_publishing_fails_the_state_stays_as_it_was(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    stored, serial = bench.stored(), bench.service.core.serial
    bench.engine.fail["publish"] = refused()
    with pytest.raises(DataplaneError):
        await bench.service.limits.put(ADMIN, "web", {**WEB, "rate": "1/s"})
    assert bench.stored() == stored
    assert bench.service.limits.show("web")["rate"] == "1000/s"
    assert bench.service.core.serial == serial
    bench.engine.fail.clear()
    await bench.service.limits.put(ADMIN, "dns", {"key": "global", "rate": "1/s"})
    assert {limit.name for limit in bench.stored().limits} == {"web", "dns"}


async def test_when_the_disk_is_full_the_old_ruleset_is_in_force_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    connection = bench.service.core.state._database.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    many = [{"prefix": f"10.0.{n >> 8}.{n & 255}", "rate": "5/s"} for n in range(3000)]
    with pytest.raises(StateError):
        await bench.service.limits.put_overrides(ADMIN, "web", many)
    assert bench.stored().overrides == ()
    assert bench.service.limits.show("web")["overrides"] == 0
    assert len(bench.engine.in_force.plans) == len(bench.engine.published[0].plans)


async def test_a_limit_that_was_in_force_and_not_committed_leaves_nothing_to_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    connection = bench.service.core.state._database.connection
    publish = bench.engine.publish

    def publish_and_lose(ruleset: Any) -> None:
        publish(ruleset)
        if connection.in_transaction:
            connection.execute("ROLLBACK")  # so that the commit which follows fails

    monkeypatch.setattr(bench.engine, "publish", publish_and_lose)
    with pytest.raises(StateError):
        await bench.service.limits.put(ADMIN, "dns", {"key": "src", "rate": "1/h", "burst": "100"})
    monkeypatch.undo()
    assert bench.engine.in_force.order == ["web"]
    await bench.service.limits.put(ADMIN, "other", WEB)
    given = bench.service.core.world.allotment.slots["other"]
    assert bench.engine.purged == [given.uid]
    assert bench.engine.zeroed == [given.slot]


async def test_wrong_input_is_refused_whole(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    published = len(bench.engine.published)
    good, bad = {"prefix": "203.0.113.0/24", "rate": "5/s"}, {"prefix": "10.0.0.1/8", "rate": "5/s"}
    with pytest.raises(InvalidInput) as caught:
        await bench.service.limits.put_overrides(ADMIN, "web", [good, bad])
    assert caught.value.where == "overrides[1].prefix"
    assert "10.0.0.0/8" in caught.value.hint
    with pytest.raises(InvalidInput):
        await bench.service.limits.put(ADMIN, "web", {**WEB, "rate": "many"})
    assert bench.stored().overrides == ()
    assert len(bench.engine.published) == published


async def test_changes_made_at_once_all_happen(bench: Bench) -> None:
    names = [f"limit{n}" for n in range(20)]
    await asyncio.gather(*(bench.service.limits.put(ADMIN, name, WEB) for name in names))
    assert [limit["name"] for limit in bench.service.limits.list()["limits"]] == sorted(names)
    serials = [int(ruleset.header["serial"]) for ruleset in bench.engine.published]
    assert serials == sorted(set(serials))
    slots = bench.service.core.world.allotment.slots.values()
    assert len({slot.slot for slot in slots}) == len({slot.uid for slot in slots}) == 20


async def test_a_caller_who_goes_away_leaves_no_half_change(bench: Bench) -> None:
    change = asyncio.ensure_future(bench.service.limits.put(ADMIN, "web", WEB))
    await asyncio.sleep(0)
    change.cancel()
    await bench.service.limits.put(ADMIN, "dns", {"key": "global", "rate": "1/s"})
    assert {limit.name for limit in bench.stored().limits} == set(bench.engine.in_force.order)


async def test_257_limits_are_refused_and_256_are_not(bench: Bench) -> None:
    document = {"limits": [{"name": f"l{n}", **WEB} for n in range(256)]}
    await bench.service.policy.apply(ADMIN, document, dry_run=False)
    with pytest.raises((Conflict, InvalidInput)):
        await bench.service.limits.put(ADMIN, "one-more", WEB)
    assert len(bench.stored().limits) == 256


async def test_apply_makes_the_policy_that_of_the_document(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "old", WEB)
    document = {
        "limits": [{"name": "web", **WEB, "overrides": [{"prefix": "203.0.113.0/24", "rate": "5/s"}]}],
        "exempt": [{"prefix": "192.0.2.0/24", "note": "monitoring"}],
        "ban": [{"prefix": "198.51.100.7"}],
    }
    dry = await bench.service.policy.apply(ADMIN, document, dry_run=True)
    assert not dry["applied"]
    assert [limit.name for limit in bench.stored().limits] == ["old"]
    done = await bench.service.policy.apply(ADMIN, document, dry_run=False)
    assert done["applied"]
    assert done["diff"] == dry["diff"]
    assert {(one["change"], one["kind"], one["name"]) for one in done["diff"]} >= {
        ("removed", "limit", "old"),
        ("added", "limit", "web"),
    }
    assert bench.engine.in_force.order == ["web"]
    exported = await bench.service.policy.export()
    again = await bench.service.policy.apply(ADMIN, exported, dry_run=False)
    assert again["diff"] == []


async def test_a_document_with_one_wrong_word_changes_nothing_and_says_where(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "old", WEB)
    document = {"limits": [{"name": "web", **WEB}, {"name": "bad", **WEB, "rate": "fast"}]}
    with pytest.raises(InvalidInput) as caught:
        await bench.service.policy.apply(ADMIN, document, dry_run=False)
    assert caught.value.where == "limits[1].rate"
    assert [limit.name for limit in bench.stored().limits] == ["old"]


async def test_bans_end_by_themselves(bench: Bench) -> None:
    await bench.service.guards.put(ADMIN, "ban", "198.51.100.7", "10m", "")
    await bench.service.guards.put(ADMIN, "ban", "198.51.100.8", None, "for ever")
    await bench.service.guards.put(ADMIN, "exempt", "192.0.2.0/24", "1h", "")
    bench.time.now += 601
    assert [one["prefix"] for one in (await bench.service.guards.list("ban"))["ban"]] == ["198.51.100.8/32"]
    assert await bench.service.guards.sweep() == 1
    assert await bench.service.guards.sweep() == 0
    assert [ban.prefix for ban in bench.stored().bans] == ["198.51.100.8/32"]
    assert len(bench.stored().exempts) == 1


async def test_bans_made_by_limits_are_listed_and_lifted(bench: Bench) -> None:
    bench.engine.banned = {"203.0.113.7/32": 10**10, "2001:db8::/64": 10**9}
    await bench.service.guards.put(ADMIN, "ban", "203.0.113.7", None, "ticket")
    rows = (await bench.service.guards.list("ban"))["ban"]
    assert [(row["prefix"], row["by"]) for row in rows] == [
        ("203.0.113.7/32", "person"), ("203.0.113.7/32", "limit"), ("2001:db8::/64", "limit"),
    ]  # fmt: skip
    assert rows[1]["until"] == bench.time.now + 10
    await bench.service.guards.delete(ADMIN, "ban", "203.0.113.7")
    await bench.service.guards.delete(ADMIN, "ban", "2001:db8::/64")
    assert await bench.service.guards.list("ban") == {"ban": []}
    assert bench.stored().bans == ()
    with pytest.raises(NotFound):
        await bench.service.guards.delete(ADMIN, "ban", "2001:db8::/64")


async def test_removing_a_ban_that_is_not_there_is_an_error(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.service.guards.delete(ADMIN, "ban", "198.51.100.7")


async def test_attaching_protects_before_the_program_is_on(bench: Bench) -> None:
    bench.engine.calls.clear()
    shown = await bench.service.nics.attach(
        ADMIN, "eth1", mode="auto", confirm=None, replacing=False, protect=["203.0.113.9"]
    )
    assert bench.engine.calls == ["publish", "attach"]
    assert shown["attached"]
    assert shown["mode"] == "native"
    assert bench.service.core.world.protects(bench.settings.protect) == ("192.0.2.254/32", "203.0.113.9/32")


async def attach(service: Service, nic: str, confirm: str | None = None, **given: Any) -> Any:
    return await service.nics.attach(
        ADMIN, nic, **{"mode": "auto", "confirm": confirm, "replacing": False, "protect": [], **given}
    )


async def test_somebody_elses_program_is_left_and_nothing_is_remembered(bench: Bench) -> None:
    bench.engine.links["eth1"] = "foreign"
    with pytest.raises(Foreign) as caught:
        await attach(bench.service, "eth1")
    assert "id 7" in caught.value.what
    assert bench.engine.links["eth1"] == "foreign"
    assert bench.service.core.state.nics() == {}
    await attach(bench.service, "eth1", replacing=True)
    assert bench.engine.links["eth1"] == "ours"


async def test_a_failed_change_of_an_attached_nic_leaves_it_as_it_was(bench: Bench) -> None:
    await attach(bench.service, "eth1", protect=["203.0.113.9"])
    before = bench.service.core.state.nics()
    bench.engine.fail["attach"] = refused()
    with pytest.raises(DataplaneError):
        await attach(bench.service, "eth1", mode="generic")
    assert bench.service.core.state.nics() == before


async def test_after_a_restart_what_is_missing_is_attached_again(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    await attach(bench.service, "eth2")
    bench.engine.links["eth1"] = ""
    del bench.engine.links["eth2"]
    service = await bench.again()
    assert bench.engine.links["eth1"] == "ours"
    states = {nic["nic"]: nic["attached"] for nic in await service.nics.list()}
    assert states == {"eth1": True, "eth2": False}
    bench.engine.links["eth2"] = ""
    assert await service.nics.restore() == ["eth2: attached again, in native mode"]
    assert await service.nics.restore() == []


async def test_a_nic_that_cannot_be_attached_again_is_said_once(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    bench.engine.links["eth1"] = "foreign"
    said = await bench.service.nics.restore()
    assert len(said) == 1
    assert "cannot be attached" in said[0]
    assert await bench.service.nics.restore() == []
    (shown,) = await bench.service.nics.list()
    assert "another XDP program" in shown["problem"]


async def test_detach_is_remembered(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    await bench.service.nics.detach(ADMIN, "eth1")
    assert bench.engine.links["eth1"] == ""
    await bench.again()
    assert bench.engine.links["eth1"] == ""
    with pytest.raises(NotFound):
        await bench.service.nics.detach(ADMIN, "eth1")


async def test_a_detach_that_was_cut_short_is_finished_at_start(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    bench.engine.fail["detach"] = refused()
    with pytest.raises(DataplaneError):
        await bench.service.nics.detach(ADMIN, "eth1")
    assert bench.engine.links["eth1"] == "ours"
    await bench.again()
    assert bench.engine.links["eth1"] == ""


async def test_detach_takes_the_program_off_though_the_disk_is_full(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    connection = bench.service.core.state._database.connection
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StateError, match="eth1 is detached, but that could not be written"):
        await bench.service.nics.detach(ADMIN, "eth1")
    assert bench.engine.links["eth1"] == ""
    assert await bench.service.nics.restore() == []
    assert bench.engine.links["eth1"] == ""
    connection.execute("PRAGMA query_only = OFF")
    await bench.service.nics.detach(ADMIN, "eth1")
    await attach(bench.service, "eth1")
    assert bench.engine.links["eth1"] == "ours"


async def test_closing_takes_nothing_off(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    await bench.service.close()
    assert bench.engine.closed
    assert bench.engine.links["eth1"] == "ours"


async def test_an_unconfirmed_trial_ends_and_a_confirmed_one_does_not(bench: Bench) -> None:
    await attach(bench.service, "eth1", confirm="60s")
    await attach(bench.service, "eth2", confirm="60s")
    await bench.service.nics.confirm(ADMIN, "eth2")
    assert bench.service.nics.next_deadline() == 60
    assert await bench.service.nics.expire() == []
    bench.time.now += 60
    assert await bench.service.nics.expire() == ["eth1"]
    assert bench.engine.attached() == {"eth2": "native"}
    assert bench.service.nics.next_deadline() is None


async def test_a_trial_that_ran_out_while_the_daemon_was_dead_ends_at_start(bench: Bench) -> None:
    await attach(bench.service, "eth1", confirm="60s")
    await attach(bench.service, "eth2", confirm="2m")
    bench.time.now += 61
    service = await bench.again()
    assert bench.engine.attached() == {"eth2": "native"}
    assert service.nics.next_deadline() == 59


async def test_a_trial_ends_though_the_disk_is_full(bench: Bench) -> None:
    await attach(bench.service, "eth1", confirm="60s")
    bench.time.now += 61
    bench.service.core.state._database.connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StateError):
        await bench.service.nics.expire()
    assert bench.engine.links["eth1"] == ""
    assert await bench.service.nics.restore() == []
    assert bench.engine.links["eth1"] == ""


@pytest.mark.parametrize("moved", [-86400.0, 86400.0])
async def test_setting_the_wall_clock_neither_prolongs_a_trial_nor_cuts_it_short(
    bench: Bench, moved: float
) -> None:
    await attach(bench.service, "eth1", confirm="60s")
    assert bench.service.nics.next_deadline() == 60
    bench.time.set_by = moved
    bench.time.now += 30
    assert bench.service.nics.next_deadline() == 30
    assert await bench.service.nics.expire() == []
    bench.time.now += 30
    assert await bench.service.nics.expire() == ["eth1"]


async def test_a_trial_that_cannot_be_ended_keeps_no_other_from_ending(bench: Bench) -> None:
    await attach(bench.service, "eth1", confirm="60s")
    await attach(bench.service, "eth2", confirm="60s")
    bench.time.now += 61
    bench.engine.fail["detach eth1"] = refused()
    with pytest.raises(DataplaneError):
        await bench.service.nics.expire()
    assert bench.engine.attached() == {"eth1": "native"}
    bench.engine.fail.clear()
    assert await bench.service.nics.expire() == ["eth1"]


async def test_a_nic_that_could_not_be_attached_is_tried_again_by_itself(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    bench.engine.links["eth1"] = ""
    bench.engine.fail["attach"] = refused()
    await bench.service.nics.restore()
    assert bench.engine.attached() == {}
    bench.engine.fail.clear()
    await bench.service.sweep()
    assert bench.engine.attached() == {"eth1": "native"}
    (shown,) = await bench.service.nics.list()
    assert shown["problem"] == ""


@pytest.mark.parametrize("moved", [-3600.0, 300.0])
async def test_a_ban_lasts_as_long_as_it_says_though_the_wall_clock_is_set(
    bench: Bench, moved: float
) -> None:
    await bench.service.guards.put(ADMIN, "ban", "198.51.100.7", "10m", "")
    until = (await bench.service.guards.list("ban"))["ban"][0]["until"]
    bench.time.set_by = moved
    await bench.service.sweep()
    left_ns = int(bench.engine.in_force.guards["ban_until"].max()) - int(bench.time.now * 1e9)
    assert left_ns == pytest.approx((until - bench.time.now - moved) * 1e9)
    published = len(bench.engine.published)
    await bench.service.sweep()
    assert len(bench.engine.published) == published


@pytest.mark.parametrize("confirm", ["0.5s", "25h", "soon"])
async def test_a_trial_of_a_wrong_length_is_refused(bench: Bench, confirm: str) -> None:
    with pytest.raises(InvalidInput):
        await attach(bench.service, "eth1", confirm=confirm)
    assert bench.service.core.state.nics() == {}


@pytest.mark.parametrize("name", ["", "a/b", "x" * 16, "..", "a\nb"])
async def test_no_interface_can_have_this_name(bench: Bench, name: str) -> None:
    with pytest.raises(InvalidInput):
        await attach(bench.service, name)


async def test_every_change_is_in_the_audit_log_and_a_failed_one_is_not(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    with pytest.raises(InvalidInput):
        await bench.service.limits.put(ADMIN, "web", {**WEB, "rate": "many"})
    await bench.service.guards.put(Actor(1000, "ann", 7), "ban", "198.51.100.7", None, "flood")
    newest, first = (await bench.service.views.audit(10))["audit"]
    assert (newest["user"], newest["pid"], newest["action"]) == ("ann", 7, "ban.set")
    assert newest["target"] == "198.51.100.7/32"
    assert (first["user"], first["action"], first["target"]) == ("root", "limit.set", "web")
    assert first["detail"]["rate"] == "1000/s"


async def test_reload_puts_in_force_what_can_change_and_names_the_rest(bench: Bench) -> None:
    table = bench.settings.table.model_copy(update={"buckets": 4096, "full": "open"})
    wanted = replace_settings(bench.settings, malformed="pass", group="other", table=table)
    assert await bench.service.reload(wanted) == ["group", "table.buckets"]
    assert bench.engine.in_force.header["malformed_drop"] == 0
    assert bench.engine.in_force.header["table_full_open"] == 1
    assert bench.service.core.settings.group == "valkyrie"


def replace_settings(settings: Settings, **fields: Any) -> Settings:
    return settings.model_copy(update=fields)


async def test_rates_come_from_two_samples_and_survive_a_zeroed_slot(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    slot = bench.service.core.world.allotment.slots["web"].slot
    bench.engine.counters[slot]["matched"] = 100
    await bench.service.views.top(5)
    bench.engine.counters[slot]["matched"] = 300
    bench.time.now += 2
    (row,) = (await bench.service.views.top(5))["limits"]
    assert row["matched_per_s"] == 100
    bench.engine.counters[slot]["matched"] = 50
    bench.time.now += 1
    (row,) = (await bench.service.views.top(5))["limits"]
    assert row["matched_per_s"] == 50


async def test_a_slow_follower_is_told_what_it_lost_and_holds_up_nobody() -> None:
    hub = Hub(Clock())
    slow, quick = hub.join(), hub.join()
    seen: list[Any] = []

    async def read(follower: Any) -> list[Any]:
        return [event async for event in follower]

    reading = asyncio.ensure_future(read(quick))
    for n in range(QUEUE + 10):
        hub.publish({"n": n})
        if n % 100 == 0:
            await asyncio.sleep(0)
    late = asyncio.ensure_future(read(slow))
    while not seen and not late.done():
        await asyncio.sleep(0)
        if not slow._queue.qsize():
            break
    hub.close()
    got = await late
    assert [event["n"] for event in got if "n" in event] == list(range(QUEUE))
    assert [event["lost"] for event in got if "lost" in event] == [10]
    assert [event["n"] for event in await reading] == list(range(QUEUE + 10))


async def test_followers_are_bounded() -> None:
    hub = Hub(Clock())
    joined = [hub.join() for _ in range(64)]
    with pytest.raises(Conflict):
        hub.join()
    hub.leave(joined[0])
    joined[0] = hub.join()
    with pytest.raises(Conflict):
        hub.join()
    joined.clear()
    for _ in range(65):
        hub.join()  # a reader who hung up before the stream began holds no place


def test_the_world_is_replaced_and_never_edited(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    before = bench.service.core.world
    with pytest.raises(AttributeError):
        before.nics = {}  # type: ignore[misc]
    assert replace(before) == before
    asyncio.run(bench.service.close())


async def test_a_nic_that_is_renamed_stays_policed_and_is_told_by_both_names(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    bench.engine.rename("eth1", "wan0")
    assert await bench.service.nics.restore() == [
        "eth1: called wan0 now, and policed there; `detach` it and attach wan0 to change the name here"
    ]
    assert await bench.service.nics.restore(strays=True) == []
    (shown,) = await bench.service.nics.list()
    assert (shown["nic"], shown["attached"], shown["mode"]) == ("eth1", True, "native")
    assert "called wan0 now" in shown["problem"]
    assert not bench.service.nics.troubled
    await bench.service.nics.detach(ADMIN, "eth1")
    assert bench.engine.links["wan0"] == ""
