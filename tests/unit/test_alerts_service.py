# SPDX-License-Identifier: Apache-2.0
"""Alerts of a service: floods, rules, silences, tests of rules, and looks that fail."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from support.alerting import DROPS, flood, flooded, use
from support.workbench import ADMIN, WEB, Bench
from valkyrie.control import abi
from valkyrie.control.alerts.rules import made
from valkyrie.control.enums import Reason
from valkyrie.control.errors import Conflict, InvalidInput, NotFound, Unavailable
from valkyrie.control.service.engine import Figures


async def test_a_flood_raises_one_alert_and_its_end_resolves_it(bench: Bench) -> None:
    told = await flooded(bench)
    assert told.states() == ["firing"]
    assert "web drops" in told.messages[0].title
    listed = await bench.service.alerts.list()
    assert [(one["rule"], one["subject"], one["state"], one["told"]) for one in listed["alerts"]] == [
        ("web-drops", "web", "firing", True)
    ]
    await flood(bench, 10, per_second=0)
    assert told.states() == ["firing", "resolved"]
    history = (await bench.service.alerts.history(10))["history"]
    assert [one["change"] for one in history] == ["resolved", "firing"]


async def test_transitions_are_told_to_those_who_follow_the_events(bench: Bench) -> None:
    follower = bench.service.hub.join()
    await flooded(bench)
    await asyncio.sleep(0)
    bench.service.hub.close()
    kinds = [(event["kind"], event["what"]) async for event in follower]
    assert any(kind == "alert" and "web-drops firing" in what for kind, what in kinds)


async def test_a_rule_for_an_unknown_limit_is_refused_when_it_is_added(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.service.alerts.add(ADMIN, "web-drops", DROPS)
    assert (await bench.service.alerts.rules())["rules"][0]["origin"] == "shipped"


async def test_in_the_file_it_is_shown_until_the_limit_is_there(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    told = use(bench, rules=(made("web-drops", DROPS),))
    await bench.service.alerts.look()
    assert bench.service.alerts.status()["problems"] == ["rule web-drops: no such limit: web"]
    assert "no such limit: web" in caplog.text
    await bench.service.limits.put(ADMIN, "web", WEB)
    assert bench.service.alerts.status()["problems"] == []
    await flood(bench, 3)
    assert told.states() == ["firing"]
    await bench.service.limits.delete(ADMIN, "web")
    assert bench.service.alerts.status()["problems"] == ["rule web-drops: no such limit: web"]
    for _ in range(4):
        bench.time.now += 1
        await bench.service.alerts.look()
    assert told.states() == ["firing", "resolved"]


async def test_rules_are_added_replaced_removed_and_audited(bench: Bench) -> None:
    use(bench)
    await bench.service.limits.put(ADMIN, "web", WEB)
    alerts = bench.service.alerts
    added = await alerts.add(ADMIN, "web-drops", {**DROPS, "tags": {"team": "net"}})
    assert (added["origin"], added["severity"], added["tags"]) == ("added", "warning", {"team": "net"})
    await alerts.add(ADMIN, "web-drops", {**DROPS, "above": "7/s"})
    (rule,) = (await alerts.rules())["rules"]
    assert rule["above"] == "7/s"
    await alerts.remove(ADMIN, "web-drops")
    with pytest.raises(NotFound):
        await alerts.remove(ADMIN, "web-drops")
    actions = [one["action"] for one in (await bench.service.views.audit(9))["audit"]]
    assert actions[:3] == ["alert.remove", "alert.add", "alert.add"]


async def test_rules_of_the_file_and_shipped_ones_are_not_removed_from_here(bench: Bench) -> None:
    use(bench, shipped=True, rules=(made("mine", {"when": "nic-down"}),))
    for name in ("mine", "sync-lag"):
        with pytest.raises(Conflict) as caught:
            await bench.service.alerts.remove(ADMIN, name)
        assert "enabled: false" in caught.value.hint
    with pytest.raises(Conflict):
        await bench.service.alerts.add(ADMIN, "mine", {"when": "nic-down"})


async def test_a_removed_rule_resolves_what_it_fired(bench: Bench) -> None:
    told = await flooded(bench)
    await bench.service.alerts.remove(ADMIN, "web-drops")
    await flood(bench, 1)
    assert told.states() == ["firing", "resolved"]
    assert (await bench.service.alerts.history(1))["history"][0]["why"] == "the rule was taken away"


async def test_a_silence_calls_nobody_ends_by_time_and_is_in_the_history(bench: Bench) -> None:
    told = use(bench)
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.alerts.add(ADMIN, "web-drops", DROPS)
    await bench.service.alerts.silence(ADMIN, "limit=web", "1m", "a test")
    await flood(bench, 10)
    assert told.messages == []
    listed = await bench.service.alerts.list()
    assert (listed["silenced"], listed["silences"][0]["why"]) == (1, "a test")
    assert (await bench.service.alerts.history(1))["history"][0]["silenced"]
    await flood(bench, 60)
    assert told.states() == ["firing"]
    assert (await bench.service.alerts.list())["silences"] == []


async def test_a_silence_is_ended_by_hand_and_wrong_ones_are_refused(bench: Bench) -> None:
    alerts = bench.service.alerts
    use(bench)
    await alerts.silence(ADMIN, "*", "2h", "")
    await alerts.unsilence(ADMIN, "*")
    with pytest.raises(NotFound):
        await alerts.unsilence(ADMIN, "*")
    for match, lasting, why in (("a b", "1h", ""), ("a", "91d", ""), ("a", "0s", ""), ("a", "1h", "\x1b")):
        with pytest.raises(InvalidInput):
            await alerts.silence(ADMIN, match, lasting, why)


async def test_a_look_that_fails_is_survived_and_resolves_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await flooded(bench)

    def broken() -> Any:
        raise Unavailable("the maps are gone", "")

    monkeypatch.setattr(bench.engine, "figures", broken)
    for _ in range(20):
        bench.time.now += 1
        await bench.service.alerts.look()
    assert told.states() == ["firing"]
    assert (await bench.service.alerts.list())["firing"] == 1


async def test_a_test_says_what_a_rule_would_say_and_changes_nothing(bench: Bench) -> None:
    await flooded(bench)
    alerts = bench.service.alerts
    named = alerts.test("web-drops", {})
    assert [(one["subject"], one["value"], one["above"]) for one in named["readings"]] == [
        ("web", "500/s", True)
    ]
    other = alerts.test(None, {"when": "drop-rate", "above": "501/s"})
    assert [one["above"] for one in other["readings"]] == [False]
    assert alerts.test(None, {**DROPS, "limit": "gone"})["problem"] == "no such limit: gone"
    for name, fields in (("nobody", {}), (None, {"when": "weather"})):
        with pytest.raises((NotFound, InvalidInput)):
            alerts.test(name, fields)


async def test_notes_are_heard_from_the_hub_and_alerts_do_not_hear_themselves(bench: Bench) -> None:
    told = use(bench, rules=(made("links", {"when": "event", "event": "link"}),))
    for n in range(1000):
        bench.service.hub.tell("link", f"eth{n}: down")
        bench.service.hub.tell("alert", "again")
    await asyncio.sleep(0)
    await bench.service.alerts.look()
    bench.time.now += 1
    await bench.service.alerts.look()
    assert [message.tags["event"] for message in told.messages] == ["link"]
    assert "and 999 more" in told.messages[0].title


async def sampled(bench: Bench, forged: int, own: int) -> dict[str, Any]:
    """What a rule of top talkers says when one source has `own` of so many drops, the rest are forged."""
    events = np.zeros(forged + own, abi.EVENT)
    events["src"][:] = np.random.default_rng(1).integers(0, 1 << 60, (forged + own, 2))
    events["src"][forged:] = 5
    events["slot"] = bench.service.core.world.allotment.slots["web"].slot
    events["reason"] = Reason.LIMIT
    for _ in range(50):
        bench.service.talkers.add(events, bench.service.core.world.name_of_slot, 1.0)
    await flood(bench, 2)
    return bench.service.alerts.test(None, {"when": "top-talker", "at_least": "1/h", "above": "50%"})


@pytest.mark.parametrize(("own", "above"), [(5, False), (9000, True)])
async def test_a_source_of_a_flood_of_forged_ones_is_told_by_its_true_share(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, own: int, above: bool
) -> None:
    use(bench)
    await bench.service.limits.put(ADMIN, "web", WEB)
    reasons = np.zeros(abi.REASONS, abi.REASON_STATS)

    def figures() -> Figures:
        reasons["packets"][Reason.LIMIT] += 5000
        return Figures(bench.engine.counters, reasons, {})

    monkeypatch.setattr(bench.engine, "figures", figures)
    said = await sampled(bench, 1000, own)
    assert [one["above"] for one in said["readings"]] == [True] * above
