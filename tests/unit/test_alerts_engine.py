# SPDX-License-Identifier: Apache-2.0
"""When alerts fire and end, with times that the tests pass in."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.alerts import Run, counts, nic, rule
from valkyrie.adapters.hybrid.events import ChainStatus, MemberStatus
from valkyrie.adapters.store import StoreStats
from valkyrie.control.alerts.engine import MOST_ALERTS
from valkyrie.control.alerts.notices import MOST_KINDS, Notice, Tally, tallied
from valkyrie.control.alerts.readings import MOST_SIGHTS
from valkyrie.control.alerts.sight import Counts, StoreSight, Talker, _store

EVENT = {"event": "link"}


def dropping(run: Run, per_second: int, seconds: int, **more: int) -> list[tuple[str, str]]:
    """Look each second while `web` drops so much; all that changed."""
    changed = []
    for _ in range(seconds):
        last = run.state.window.newest
        before = 0 if last is None or last.limits is None else last.limits["web"].dropped
        changed += run.look(limits=counts(web=before + per_second, **more))
    return changed


def test_a_rate_fires_after_its_time_and_not_before() -> None:
    run = Run([rule(above="100/s", lasts="10s", clear_after="20s")])
    assert dropping(run, 200, 10) == []
    assert dropping(run, 200, 2) == [("firing", "web")]


def test_a_dip_while_it_waits_begins_the_time_anew() -> None:
    run = Run([rule(above="100/s", lasts="10s", clear_after="20s")])
    assert dropping(run, 200, 9) == dropping(run, 0, 6) == dropping(run, 200, 10) == []


def test_it_is_over_only_after_clear_after_below_clear_below() -> None:
    run = Run([rule(above="100/s", lasts="1s", clear_below="50/s", clear_after="10s")])
    assert dropping(run, 200, 8) == [("firing", "web")]
    assert dropping(run, 80, 60) == [], "between the two it goes on"
    assert dropping(run, 10, 10) == []
    assert dropping(run, 10, 6) == [("resolved", "web")]


def test_each_limit_has_its_own_alert_under_one_rule() -> None:
    run = Run([rule(above="100/s", lasts="0s")])
    run.look(limits=counts(web=0, dns=0, mail=0))
    assert run.look(limits=counts(web=500, dns=500, mail=5)) == [("firing", "web"), ("firing", "dns")]


def test_a_rule_of_a_limit_that_is_not_there_is_silent_and_comes_alive_with_it() -> None:
    run = Run([rule(limit="later", above="100/s", lasts="0s")])
    run.look(limits=counts(web=0))
    assert run.look(limits=counts(web=9999)) == []
    run.look(limits=counts(web=9999, later=0))
    assert run.look(limits=counts(web=9999, later=500)) == [("firing", "later")]


def test_what_fires_for_a_limit_that_is_deleted_is_over() -> None:
    run = Run([rule(above="100/s", lasts="0s", clear_after="3s")])
    run.look(limits=counts(web=0))
    run.look(limits=counts(web=900))
    assert [run.look(limits={}) for _ in range(4)][-1] == [("resolved", "web")]
    assert run.seen[-1].why == "gone"


def test_counters_that_were_set_to_zero_do_not_fire_nor_crash() -> None:
    run = Run([rule(above="100/s", lasts="0s")])
    run.look(limits=counts(web=1_000_000))
    assert run.look(limits=counts(web=3)) == []


def test_a_share_is_not_judged_where_there_is_hardly_any_traffic() -> None:
    run = Run([rule(when="drop-share", above="20%", at_least="10/s", lasts="0s")])
    run.look(limits={"web": Counts(0, 0, 0)})
    assert run.look(limits={"web": Counts(2, 2, 0)}) == []
    assert run.look(limits={"web": Counts(2000, 1000, 0)}) == [("firing", "web")]


def test_what_cannot_be_known_changes_nothing() -> None:
    run = Run([rule(when="nic-detached", lasts="0s", clear_after="1s")])
    assert run.look(nics=[nic(attached=False)]) == [("firing", "eth0")]
    for _ in range(100):
        assert run.look() == []
    assert run.firing() == ["eth0"]
    assert [run.look(nics=[nic()]) for _ in range(2)][-1] == [("resolved", "eth0")]


def test_a_nic_that_is_away_or_down_or_without_program_is_told_by_its_own_rule() -> None:
    rules = [rule("off", "nic-detached", lasts="0s"), rule("down", "nic-down", lasts="0s")]
    run = Run(rules)
    run.look(
        nics=[nic("a", attached=False), nic("b", running=False), nic("c", present=False, attached=False)]
    )
    assert sorted((one.alert.rule, one.alert.subject) for one in run.seen) == [
        ("down", "b"), ("off", "a"), ("off", "c"),
    ]  # fmt: skip


def test_a_rule_for_one_nic_leaves_the_others_alone() -> None:
    run = Run([rule(when="nic-detached", nic="b", lasts="0s")])
    assert run.look(nics=[nic("a", attached=False), nic("b", attached=False)]) == [("firing", "b")]


def test_a_source_with_a_large_share_is_told_and_a_forged_flood_of_many_is_not() -> None:
    run = Run([rule(when="top-talker", above="50%", lasts="0s", clear_after="1s")])
    many = [Talker(f"198.51.100.{n}", "web", 0.01) for n in range(100)]
    run.look(dropped=0, talkers=many)
    assert run.look(dropped=5000, talkers=many) == []
    one = [Talker("203.0.113.9", "web", 0.8)]
    assert run.look(dropped=9000, talkers=one) == [("firing", "203.0.113.9 web")]
    assert run.seen[0].alert.tags == {"source": "203.0.113.9", "limit": "web"}


def test_a_source_of_few_drops_is_nobody() -> None:
    run = Run([rule(when="top-talker", above="50%", lasts="0s")])
    run.look(dropped=0, talkers=[Talker("203.0.113.9", "web", 1.0)])
    assert run.look(dropped=3, talkers=[Talker("203.0.113.9", "web", 1.0)]) == []


def test_the_table_fires_when_it_is_full_or_takes_buckets_in_use() -> None:
    run = Run([rule("full", "table-full", lasts="0s"), rule("evicting", "table-evicting", lasts="0s")])
    run.look(used=0.79, table={"evicted_live": 0})
    run.look(used=0.81, table={"evicted_live": 50})
    assert sorted(one.alert.rule for one in run.seen) == ["evicting", "full"]


def test_a_store_that_was_away_for_a_moment_between_two_looks_is_told() -> None:
    run = Run([rule(when="store-switched")])
    run.look(store=StoreSight("valkey", "valkey", 3, {}))
    assert run.look(store=StoreSight("valkey", "valkey", 4, {})) == [("firing", "")]


def test_another_store_in_use_fires_for_as_long_as_it_is() -> None:
    run = Run([rule(when="store-switched", clear_after="5s"), rule("none", "store-none", lasts="0s")])
    away = StoreSight("valkey", "redis", 0, {})
    assert run.look(store=away) == [("firing", "")]
    assert [run.look(store=away) for _ in range(60)] == [[]] * 60
    run.look(store=StoreSight("valkey", None, 1, {}))
    assert run.seen[-1].alert.rule == "none"


def test_a_breaker_that_was_open_before_the_daemon_looked_is_no_news() -> None:
    run = Run([rule(when="breaker-open")])
    assert run.look(store=StoreSight("redis", "redis", 0, {"redis": 7})) == []
    assert run.look(store=StoreSight("redis", "redis", 0, {"redis": 8})) == [("firing", "redis")]


def test_a_breaker_that_stays_open_fires_until_it_is_closed() -> None:
    run = Run([rule(when="breaker-open", clear_after="3s")])
    still = StoreSight("redis", None, 0, {"redis": 1}, frozenset({"redis"}))
    assert run.look(store=still) == [("firing", "redis")]
    assert [run.look(store=still) for _ in range(30)] == [[]] * 30
    closed = StoreSight("redis", "redis", 0, {"redis": 1})
    assert [run.look(store=closed) for _ in range(4)][-1] == [("resolved", "redis")]


def test_sync_lag_and_old_credentials_have_their_figures() -> None:
    run = Run([rule("lag", "sync-lag", lasts="0s"), rule("old", "credential-old", above="10d")])
    run.look(sync_lag=61.0, sync_what="away: no route", credentials={"a": 864001.0, "b": 5.0})
    assert {(one.alert.rule, one.alert.subject) for one in run.seen} == {("lag", ""), ("old", "a")}
    assert "away: no route" in run.seen[0].alert.what


def test_lag_without_a_sync_is_none() -> None:
    run = Run([rule(when="sync-lag", lasts="0s")])
    assert run.look(sync_lag=9e9, synced=False) == []


def test_a_restart_fires_once_and_ends_by_itself() -> None:
    run = Run([rule(when="daemon-restarted", clear_after="5s")])
    assert run.look(restarted="killed") == [("firing", "")]
    assert [change for _ in range(20) for change in run.look()] == [("resolved", "")]


def test_a_rule_that_is_taken_away_or_turned_off_ends_what_it_fired() -> None:
    run = Run([rule(when="nic-detached", lasts="0s")])
    run.look(nics=[nic(attached=False)])
    run.rules = [rule(when="nic-detached", lasts="0s", enabled=False)]
    assert run.look(nics=[nic(attached=False)]) == [("resolved", "eth0")]
    assert run.look(nics=[nic(attached=False)]) == []


def test_a_storm_of_100_000_notes_is_one_alert_in_bounded_time_and_memory() -> None:
    tally = Tally()
    began = time.process_time()
    for n in range(100_000):
        tally.hear({"kind": "link", "what": f"eth{n % 9}: link down"})
    notices = tally.take()
    run = Run([rule(when="event", **EVENT)])
    assert run.look(notices=notices) == [("firing", "link")]
    assert time.process_time() - began < 2
    assert "and 99999 more" in run.seen[0].alert.what
    assert [run.look(notices=notices) for _ in range(100)] == [[]] * 100


def test_kinds_of_notes_that_somebody_makes_up_do_not_fill_the_memory() -> None:
    told = tallied({"kind": f"k{n}", "what": "x" * 10_000} for n in range(100_000))
    assert len(told) == MOST_KINDS
    assert max(len(one.what) for one in told.values()) <= 256


@pytest.mark.parametrize("kind", ["drop", "alert", "", "UPPER", "a b", "x" * 33])
def test_drops_alerts_and_odd_kinds_are_no_notes(kind: str) -> None:
    assert tallied([{"kind": kind, "what": "?"}]) == {}


def test_more_alerts_than_there_is_room_for_are_counted_and_get_it_later() -> None:
    run = Run([rule("a", above="1/s", lasts="0s", clear_after="1s"), rule("b", above="1/s", lasts="0s")])
    names = {f"l{n}": Counts(0, 0, 0) for n in range(MOST_ALERTS)}
    run.look(limits=names)
    run.look(limits={name: Counts(99, 99, 0) for name in names})
    assert (len(run.state.alerts), run.state.crowded) == (MOST_ALERTS, MOST_ALERTS)
    run.rules = run.rules[1:]
    run.look(limits={name: Counts(199, 199, 0) for name in names})
    assert (len(run.state.firing()), run.state.crowded) == (MOST_ALERTS, 0)


def test_looks_that_come_too_fast_do_not_grow_the_window() -> None:
    run = Run([rule(above="100/s")])
    for _ in range(1000):
        run.look(after=0.001, limits=counts(web=0))
    assert len(run.state.window.sights) <= MOST_SIGHTS


values = st.lists(st.sampled_from([None, 0, 40, 60, 101, 5000]), min_size=1, max_size=120)


@given(values, st.integers(0, 10), st.integers(1, 10))
def test_it_never_flaps_faster_than_its_times_and_each_firing_has_one_end(
    series: list[int | None], lasts: int, clear: int
) -> None:
    run = Run(
        [rule(when="sync-lag", above="100s", clear_below="50s", lasts=f"{lasts}s", clear_after=f"{clear}s")]
    )
    changes: list[tuple[float, str]] = []
    for value in series:
        lag = None if value is None else float(value)
        changes += [(run.now, change) for change, _ in run.look(sync_lag=lag)]
    for _ in range(clear + 1):
        changes += [(run.now, change) for change, _ in run.look(sync_lag=0.0)]
    kinds = [change for _, change in changes]
    assert kinds == ["firing", "resolved"] * (len(kinds) // 2)
    for (before, change), (after, _) in pairwise(changes):
        assert after - before >= (clear if change == "firing" else lasts)
    assert run.state.alerts == {}


@given(st.lists(st.dictionaries(st.sampled_from("abcde"), st.booleans(), max_size=5), max_size=60))
def test_of_many_subjects_each_firing_has_exactly_one_end(looks: list[dict[str, bool]]) -> None:
    run = Run([rule(when="nic-detached", lasts="2s", clear_after="2s")])
    for look in looks:
        run.look(nics=[nic(name, attached=attached) for name, attached in look.items()])
    for _ in range(3):
        run.look(nics=[])
    told = Counter((one.alert.subject, one.change) for one in run.seen)
    for subject in "abcde":
        assert told[(subject, "firing")] == told[(subject, "resolved")]
    assert run.firing() == []


def test_256_limits_and_two_rules_over_each_take_little_of_a_second() -> None:
    run = Run([rule("a", above="100/s"), rule("b", "drop-share", above="20%")])
    for n in range(10):
        run.look(limits={f"l{i}": Counts(n * 900, n * 500, 0) for i in range(256)})
    began = time.process_time()
    for n in range(10, 30):
        run.look(limits={f"l{i}": Counts(n * 900, n * 500, 0) for i in range(256)})
    assert (time.process_time() - began) / 20 < 0.05
    assert Notice(2, "x").text() == "x (and 1 more)"


def chain(*, is_open: int, opened: int) -> ChainStatus:
    stats = StoreStats("redis", 1, {}, {"breaker_opened": opened, "breaker_open": is_open})
    redis = MemberStatus("redis", "away", "no route", 0.0, None, 5.0, stats)
    embedded = MemberStatus("embedded", "in-use", "", 0.0, None, 5.0, None)
    return ChainStatus("embedded", "fail_closed", (redis, embedded), 2, 1, 1, 0, 0, 0)


def test_the_sight_of_a_chain_has_its_first_store_switches_and_breakers() -> None:
    assert _store(chain(is_open=1, opened=4)) == StoreSight(
        "redis", "embedded", 3, {"redis": 4}, frozenset({"redis"}), "no route"
    )
    assert _store(chain(is_open=0, opened=4)).open == frozenset()
