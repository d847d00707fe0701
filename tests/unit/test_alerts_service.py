# SPDX-License-Identifier: Apache-2.0
"""Alerts of a service: rules, silences, history, restarts, and a dispatcher that is of no help."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.workbench import ADMIN, WEB, Bench
from valkyrie.adapters.notify.message import Message
from valkyrie.control import abi
from valkyrie.control.alerts.outbox import MOST
from valkyrie.control.alerts.rules import made
from valkyrie.control.alerts.settings import AlertSettings
from valkyrie.control.enums import Reason
from valkyrie.control.errors import Conflict, InvalidInput, NotFound, StateError, Unavailable
from valkyrie.control.service.engine import Figures
from valkyrie.control.service.service import Service

NOW = AlertSettings(shipped=False, group_wait="0s", history=100)
DROPS = {"when": "drop-rate", "limit": "web", "above": "100/s", "for": "0s", "clear_after": "2s"}


class Told:
    """Takes messages as the dispatcher does, or refuses."""

    def __init__(self, service: Service) -> None:
        self.messages: list[Message] = []
        self.refuse: Exception | None = None
        self.answer: bool | None = True
        service.alerts.submit_to(self.submit)

    def submit(self, message: Message) -> asyncio.Future[bool]:
        if self.refuse is not None:
            raise self.refuse
        self.messages.append(message)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self.answer is not None:
            future.set_result(self.answer)
        return future

    def states(self) -> list[str]:
        return [message.state for message in self.messages]


def use(bench: Bench, **settings: Any) -> Told:
    alerts = NOW.model_copy(update=settings)
    bench.settings = bench.settings.model_copy(update={"alerts": alerts})
    bench.service.core.use(bench.settings)
    return Told(bench.service)


async def flood(bench: Bench, seconds: int, per_second: int = 500) -> None:
    """A look each second while `web` drops."""
    slot = bench.service.core.world.allotment.slots["web"].slot
    for _ in range(seconds):
        bench.engine.counters[slot]["matched"] += 2 * per_second
        bench.engine.counters[slot]["dropped"] += per_second
        bench.time.now += 1
        await bench.service.alerts.look()


async def flooded(bench: Bench) -> Told:
    """With a rule, and the flood that makes it fire."""
    told = use(bench)
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.alerts.add(ADMIN, "web-drops", DROPS)
    await flood(bench, 3)
    return told


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


async def test_what_fires_survives_a_restart_without_being_told_again_and_ends_if_it_is_gone(
    bench: Bench,
) -> None:
    told = await flooded(bench)
    await bench.again()
    again = Told(bench.service)
    await flood(bench, 20)
    assert again.messages == []
    assert [one["rule"] for one in (await bench.service.alerts.list())["alerts"]] == ["web-drops"]
    await flood(bench, 10, per_second=0)
    assert again.states() == ["resolved"]
    assert again.messages[0].key == told.messages[0].key


async def test_a_daemon_that_was_killed_leaves_a_state_that_the_next_one_takes_up(bench: Bench) -> None:
    await flooded(bench)
    bench.service.alerts._watch.book.close()
    await bench.service.core.close()  # without a word of the alerts
    bench.service = bench._make()
    await bench.service.start()
    told = use(bench, rules=(made("again", {"when": "daemon-restarted"}),))
    await flood(bench, 5)
    assert [message.tags["rule"] for message in told.messages] == ["again"]
    assert "without a word" in told.messages[0].title


class Killed(BaseException):
    """Here the process is killed."""


async def test_a_daemon_that_is_killed_while_it_tells_ends_what_it_told_under_the_same_key(
    bench: Bench,
) -> None:
    told = use(bench)
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.alerts.add(ADMIN, "web-drops", DROPS)
    take = told.submit

    def submit(message: Message) -> asyncio.Future[bool]:
        take(message)
        raise Killed

    bench.service.alerts.submit_to(submit)
    with pytest.raises(Killed):
        await flood(bench, 3)
    bench.service.alerts._watch.book.close()
    await bench.service.core.close()
    bench.service = bench._make()
    await bench.service.start()
    again = Told(bench.service)
    await flood(bench, 3)
    await flood(bench, 10, per_second=0)
    assert again.states()[-1] == "resolved"
    assert {one.key for one in again.messages} == {told.messages[0].key}


async def test_messages_that_nobody_took_are_handed_over_after_the_restart(bench: Bench) -> None:
    told = use(bench)
    told.refuse = Unavailable("the queue is full", "empty it")
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.alerts.add(ADMIN, "web-drops", DROPS)
    await flood(bench, 3)
    assert "1 messages wait: the queue is full" in bench.service.alerts.status()["problems"][0]
    await bench.again()
    again = Told(bench.service)
    await flood(bench, 2)
    assert again.states() == ["firing"]


async def test_a_dispatcher_that_never_answers_holds_up_nothing(bench: Bench) -> None:
    told = use(bench)
    told.answer = None
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.alerts.add(ADMIN, "web-drops", DROPS)
    async with asyncio.timeout(20):
        for _ in range(12):
            await flood(bench, 3)
            await flood(bench, 10, per_second=0)
    assert told.states() == ["firing", "resolved"] * 6, "as many as an hour may have"


async def test_of_messages_that_nobody_takes_the_oldest_are_given_up_and_counted(bench: Bench) -> None:
    told = use(bench)
    told.refuse = Unavailable("no", "")
    outbox = bench.service.alerts._watch.outbox
    for n in range(MOST + 5):
        outbox.put([Message(str(n), "", made("a", {"when": "nic-down"}).level, 0.0, "k")])
        await outbox.push(0)
    assert (len(outbox.waiting()), outbox.waiting()[0].title) == (MOST, "5")
    assert "5 messages could not be told" in " ".join(bench.service.alerts.status()["problems"])


async def test_the_history_is_bounded(bench: Bench) -> None:
    use(bench)
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.alerts.add(ADMIN, "web-drops", {**DROPS, "clear_after": "1s"})
    for _ in range(60):
        await flood(bench, 2, per_second=2000)
        bench.time.now += 10
        await flood(bench, 2, per_second=0)
        bench.time.now += 10
        await flood(bench, 1, per_second=0)
    rows = (await bench.service.alerts.history(1000))["history"]
    assert len(rows) == NOW.history


async def test_a_damaged_state_is_put_aside_and_alerts_go_on(bench: Bench) -> None:
    (bench.folder / "alerts.db").write_bytes(b"not a database at all" * 1000)
    told = await flooded(bench)
    assert told.states() == ["firing"]
    assert (bench.folder / "alerts.damaged").exists()


async def test_a_state_of_a_later_version_is_put_aside(bench: Bench) -> None:
    with sqlite3.connect(bench.folder / "alerts.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    await flooded(bench)
    assert (bench.folder / "alerts.damaged").exists()


async def test_what_was_kept_and_is_not_understood_is_said_and_left(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await flooded(bench)
    with sqlite3.connect(bench.folder / "alerts.db") as connection:
        connection.execute("UPDATE meta SET value = '[1]'")
        connection.execute('UPDATE rules SET fields = \'{"when": "weather"}\'')
    connection.close()
    bench.service.alerts._watch.book.close()
    await bench.service.core.close()
    bench.service = bench._make()
    await bench.service.start()
    Told(bench.service)
    await bench.service.alerts.look()
    assert "is not understood" in caplog.text
    assert (await bench.service.alerts.rules())["rules"] == []


async def test_a_folder_that_cannot_be_written_keeps_no_alert_from_being_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = use(bench, rules=(made("again", {"when": "nic-detached", "for": "0s"}),))

    def full(*_: Any) -> None:
        raise StateError("no space left", "free some")

    monkeypatch.setattr(bench.service.alerts._watch.book, "write", full)
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.nics.attach(ADMIN, "eth1", mode="auto", confirm=None, replacing=False, protect=[])
    bench.engine.links["eth1"] = ""
    await flood(bench, 2)
    assert told.states() == ["firing"]
    assert "no space left; free some" in bench.service.alerts.status()["problems"]
    monkeypatch.undo()
    await flood(bench, 1)
    assert bench.service.alerts.status()["problems"] == []
    assert [one["rule"] for one in (await bench.service.alerts.history(5))["history"]] == ["again"]


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


async def test_only_the_daemon_and_root_read_the_file(bench: Bench) -> None:
    await flooded(bench)
    assert (Path(bench.folder) / "alerts.db").stat().st_mode & 0o777 == 0o600


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
