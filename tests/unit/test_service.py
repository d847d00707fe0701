# SPDX-License-Identifier: Apache-2.0
"""The service over a real state and a data plane in memory: a change happens wholly or not at all."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.fake_engine import refused
from support.workbench import ADMIN, WEB, Bench
from valkyrie.control.errors import Conflict, DataplaneError, InvalidInput, NotFound, StateError


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
    await bench.service.policy.apply(ADMIN, document)
    with pytest.raises((Conflict, InvalidInput)):
        await bench.service.limits.put(ADMIN, "one-more", WEB)
    assert len(bench.stored().limits) == 256


async def test_a_document_can_replace_as_many_limits_as_there_may_be(bench: Bench) -> None:
    for name in "ab":
        document = {"limits": [{"name": f"{name}{n}", **WEB} for n in range(256)]}
        await bench.service.policy.apply(ADMIN, document)
    assert bench.engine.in_force.order == sorted(limit["name"] for limit in document["limits"])
    assert sorted(bench.engine.zeroed) == list(range(256))
    assert bench.service.core.world.allotment.retired == ()


async def test_a_time_that_no_clock_reaches_is_as_good_as_never(bench: Bench) -> None:
    await bench.service.policy.apply(ADMIN, {"ban": [{"prefix": "192.0.2.0/24", "until": 1e300}]})
    assert int(bench.engine.in_force.guards["ban_until"].max()) > 1 << 62


async def test_apply_makes_the_policy_that_of_the_document(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "old", WEB)
    document = {
        "limits": [{"name": "web", **WEB, "overrides": [{"prefix": "203.0.113.0/24", "rate": "5/s"}]}],
        "exempt": [{"prefix": "192.0.2.0/24", "note": "monitoring"}],
        "ban": [{"prefix": "198.51.100.7"}],
    }
    dry = await bench.service.policy.compare(document)
    assert not dry["applied"]
    assert [limit.name for limit in bench.stored().limits] == ["old"]
    done = await bench.service.policy.apply(ADMIN, document)
    assert done["applied"]
    assert done["diff"] == dry["diff"]
    assert {(one["change"], one["kind"], one["name"]) for one in done["diff"]} >= {
        ("removed", "limit", "old"),
        ("added", "limit", "web"),
    }
    assert bench.engine.in_force.order == ["web"]
    exported = await bench.service.policy.export()
    again = await bench.service.policy.apply(ADMIN, exported)
    assert again["diff"] == []


async def test_a_document_with_one_wrong_word_changes_nothing_and_says_where(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "old", WEB)
    document = {"limits": [{"name": "web", **WEB}, {"name": "bad", **WEB, "rate": "fast"}]}
    with pytest.raises(InvalidInput) as caught:
        await bench.service.policy.apply(ADMIN, document)
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


def test_the_world_is_replaced_and_never_edited(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    before = bench.service.core.world
    with pytest.raises(AttributeError):
        before.nics = {}  # type: ignore[misc]
    assert replace(before) == before
    asyncio.run(bench.service.close())
