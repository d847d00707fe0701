# SPDX-License-Identifier: Apache-2.0
"""What people are told of alerts: as one message, not too often, and never half of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.alerts import WALL, rule
from valkyrie.adapters.notify.message import Message, Severity
from valkyrie.adapters.notify.settings import Route
from valkyrie.control.alerts.engine import Alert, Change, Transition
from valkyrie.control.alerts.groups import MOST_LINES, Group, Terms, tell
from valkyrie.control.alerts.kept import Kept, kept_in, text_of
from valkyrie.control.alerts.silences import Silence, checked_match, silenced
from valkyrie.control.errors import InvalidInput
from valkyrie.control.notify.routes import leads

TERMS = Terms(group_wait=10, repeat=3600, most_an_hour=4, node="edge1")


def alert(subject: str = "web", name: str = "drops", severity: Severity = Severity.WARNING) -> Alert:
    return Alert(
        name, subject, "drop-rate", severity, 0.0, 5.0, 5.0, f"{subject} drops 5/s",
        {"limit": subject, "team": "net"}, "call Ann", fired=WALL,
    )  # fmt: skip


@dataclass
class Telling:
    """Groups over time; `live` are the alerts that fire."""

    terms: Terms = TERMS
    live: dict[str, Alert] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    silent: Callable[[Alert], bool] = lambda one: False
    now: float = 0.0
    changes: list[Transition] = field(default_factory=list)

    def fire(self, *subjects: str) -> None:
        for one in map(alert, subjects):
            self.live[one.subject] = one
            self._changed("firing", one)

    def end(self, *subjects: str) -> None:
        for subject in subjects:
            self._changed("resolved", self.live.pop(subject))

    def _changed(self, change: Change, one: Alert) -> None:
        self.changes.append(Transition(change, one, WALL + self.now))

    def after(self, seconds: float) -> list[Message]:
        """All messages of so many seconds, a look each."""
        messages: list[Message] = []
        for _ in range(int(seconds)):
            self.now += 1
            changes, self.changes = self.changes, []
            self.groups, new = tell(
                self.groups, list(self.live.values()), changes, self.silent, self.terms, self.now,
                WALL + self.now,
            )  # fmt: skip
            messages += new
        return messages


def test_alerts_of_a_rule_within_group_wait_are_one_message_that_lists_them() -> None:
    telling = Telling()
    telling.fire("web", "dns")
    assert telling.after(5) == []
    telling.fire("mail")
    (message,) = telling.after(30)
    assert message.state == "firing"
    assert message.title == "edge1: drops: 3 firing"
    assert message.body.splitlines() == [
        "web drops 5/s", "dns drops 5/s", "mail drops 5/s", "call Ann",
    ]  # fmt: skip


def test_one_alert_is_told_in_the_title() -> None:
    telling = Telling()
    telling.fire("web")
    (message,) = telling.after(20)
    assert message.title == "edge1: drops: web drops 5/s"
    assert message.tags["limit"] == "web"
    assert message.severity is Severity.WARNING


def test_of_many_alerts_each_tag_has_the_values_of_all() -> None:
    telling = Telling()
    telling.fire("web", "dns")
    (message,) = telling.after(20)
    assert message.tags["team"] == "net"
    assert message.tags["rule"] == "drops"
    assert message.tags["limit"] == "dns,web"
    telling.fire(*(f"l{n}" for n in range(200)))
    (message,) = telling.after(20)
    assert message.tags["limit"] == "*"


@given(
    st.lists(st.tuples(st.sampled_from(("fire", "end")), st.sampled_from(("web", "dns", "ftp"))), max_size=12)
)
def test_whoever_a_route_led_the_beginning_to_has_the_end(steps: list[tuple[str, str]]) -> None:
    route = Route(severity="info", tags={"limit": "web"}, to=("pager",))
    telling, messages = Telling(replace(TERMS, most_an_hour=1000, repeat=0)), []
    for what, subject in steps:
        if (what == "fire") != (subject in telling.live):
            telling.fire(subject) if what == "fire" else telling.end(subject)
            messages += telling.after(20)
    telling.end(*telling.live)
    messages += telling.after(20)
    called = [one for one in messages if leads(route, one)]
    begun = {one.key for one in called}
    assert begun == {one.key for one in called if one.state == "resolved"}
    assert any("web drops" in one.body for one in messages) == bool(called)


def test_a_thousand_alerts_are_one_short_message() -> None:
    telling = Telling()
    telling.fire(*(f"l{n}" for n in range(1000)))
    (message,) = telling.after(60)
    assert len(message.body.splitlines()) == MOST_LINES + 2
    assert f"and {1000 - MOST_LINES} more" in message.body


def test_the_end_has_the_key_of_the_beginning_and_a_new_beginning_another() -> None:
    telling = Telling()
    telling.fire("web")
    (first,) = telling.after(20)
    telling.end("web")
    (last,) = telling.after(20)
    assert (last.state, last.key) == ("resolved", first.key)
    assert "web drops 5/s" in last.body
    telling.fire("web")
    (again,) = telling.after(20)
    assert again.key != first.key


def test_while_others_fire_the_end_of_one_is_told_with_the_state_of_all() -> None:
    telling = Telling()
    telling.fire("web", "dns")
    (first,) = telling.after(20)
    telling.end("web")
    (message,) = telling.after(20)
    assert (message.state, message.key) == ("firing", first.key)
    assert message.body.splitlines()[:4] == ["still firing:", "dns drops 5/s", "resolved:", "web drops 5/s"]


def test_what_fired_and_ended_before_it_was_told_is_told_all_the_same() -> None:
    telling = Telling()
    telling.fire("web")
    telling.after(3)
    telling.end("web")
    (message,) = telling.after(60)
    assert message.state == "resolved"
    assert "fired and resolved meanwhile:" in message.body


def test_what_goes_on_firing_is_told_again_after_repeat_and_no_sooner() -> None:
    telling = Telling()
    telling.fire("web")
    assert len(telling.after(3600)) == 1
    (again,) = telling.after(60)
    assert again.state == "firing"
    telling.terms = replace(TERMS, repeat=0)
    assert telling.after(20_000) == []


def test_messages_of_a_rule_are_limited_and_the_next_says_how_many_were_held_back() -> None:
    telling = Telling()
    sent: list[Message] = []
    for _ in range(20):
        telling.fire("web")
        sent += telling.after(20)
        telling.end("web")
        sent += telling.after(20)
    assert len(sent) == TERMS.most_an_hour
    late = telling.after(4000)
    assert any("were held back" in message.body for message in late)
    assert late[-1].state == "resolved", "how it ended is told in the end"


def test_one_rule_does_not_use_up_what_another_may_say() -> None:
    telling = Telling()
    for _ in range(20):
        telling.fire("web")
        telling.after(20)
        telling.end("web")
        telling.after(20)
    telling.live["other"] = alert("x", "other")
    assert [message.tags["rule"] for message in telling.after(20)] == ["other"]


def test_a_silence_keeps_quiet_and_what_still_fires_after_it_is_told() -> None:
    telling = Telling(silent=lambda one: True)
    telling.fire("web")
    assert telling.after(100) == []
    telling.silent = lambda one: False
    assert len(telling.after(20)) == 1


def test_a_silence_does_not_hide_the_end_of_what_was_told_but_its_repeats() -> None:
    telling = Telling()
    telling.fire("web")
    telling.after(20)
    telling.silent = lambda one: True
    assert telling.after(8000) == []
    telling.end("web")
    assert [message.state for message in telling.after(20)] == ["resolved"]


def test_what_fires_and_ends_within_a_silence_is_not_told_at_all() -> None:
    telling = Telling(silent=lambda one: True)
    telling.fire("web")
    telling.after(20)
    telling.end("web")
    assert telling.after(100) == []


def test_a_restart_tells_nothing_twice_and_the_end_with_the_same_key() -> None:
    telling = Telling()
    telling.fire("web")
    (first,) = telling.after(20)
    text = text_of(Kept({one.id: one for one in telling.live.values()}, telling.groups), [first], 20.0, WALL)
    kept, waiting = kept_in(text, 5.0, WALL + 100)
    assert waiting == [first]
    again = Telling(live={one.subject: one for one in kept.alerts.values()}, groups=kept.groups, now=5.0)
    assert again.after(1000) == []
    again.end("web")
    (last,) = again.after(20)
    assert (last.state, last.key) == ("resolved", first.key)


def test_times_that_are_kept_count_the_time_between_two_daemons() -> None:
    group = Group(Severity.INFO, {}, "", WALL, {"web": "x"}, last=1000.0, sent=(900.0, 1000.0))
    kept, _ = kept_in(text_of(Kept({}, {"r": group}, ended=True), [], 1000.0, WALL), 50.0, WALL + 30)
    assert kept.ended
    assert kept.groups["r"].last == pytest.approx(20.0)
    assert kept.groups["r"].sent == pytest.approx((-80.0, 20.0))


def test_a_wall_clock_that_was_set_back_in_between_does_not_make_times_of_the_future() -> None:
    group = Group(Severity.INFO, {}, "", WALL, {"web": "x"}, last=1000.0)
    kept, _ = kept_in(text_of(Kept({}, {"r": group}), [], 1000.0, WALL), 50.0, WALL - 9e6)
    assert kept.groups["r"].last <= 50.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 30)), max_size=40))
def test_in_the_end_people_know_how_things_stand(steps: list[tuple[str, int]]) -> None:
    telling = Telling(terms=replace(TERMS, repeat=0))
    messages: list[Message] = []
    for subject, seconds in steps:
        if subject in telling.live:
            telling.end(subject)
        else:
            telling.fire(subject)
        messages += telling.after(seconds)
    messages += telling.after(4000)
    if messages:
        last = messages[-1]
        assert last.state == ("firing" if telling.live else "resolved")
    told = telling.groups.get("drops")
    assert set(told.told if told else ()) == set(telling.live)
    for n in range(len(messages)):
        within = [one for one in messages[n:] if one.timestamp - messages[n].timestamp < 3600]
        assert len(within) <= TERMS.most_an_hour
    keys = [message.key for message in messages if message.state == "resolved"]
    assert len(keys) == len(set(keys)), "each firing has one end"


@pytest.mark.parametrize(
    "match", ["drops", "limit=web", "team=net", "severity=warning", "when=drop-rate", "*"]
)
def test_a_silence_covers_by_rule_tag_or_all(match: str) -> None:
    silence = Silence(checked_match(match), WALL + 10, "", "root")
    assert silenced(alert(), [silence], WALL)
    assert not silenced(alert(), [silence], WALL + 10)


@pytest.mark.parametrize("match", ["other", "limit=dns", "limit=we", "team=", "=web"])
def test_a_silence_of_others_covers_nothing(match: str) -> None:
    assert not silenced(alert(), [Silence(match, WALL + 10, "", "root")], WALL)


@pytest.mark.parametrize("match", ["", "=", "a=", "=b", "A=b", "a b", "x" * 64, "limit=\x1b[2J", "**"])
def test_what_names_no_alerts_is_refused(match: str) -> None:
    with pytest.raises(InvalidInput):
        checked_match(match)


def test_the_helper_makes_rules_that_the_engine_takes() -> None:
    assert rule(above="1/s").terms.above == 1.0
