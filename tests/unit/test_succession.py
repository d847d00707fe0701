# SPDX-License-Identifier: Apache-2.0
"""When a follower takes over, by what it has seen; and what a role is in the state."""

import pytest

from valkyrie.adapters.durable import Owner
from valkyrie.control.config import Settings
from valkyrie.control.durable.role import Role, named, role_in
from valkyrie.control.durable.succession import Watch

FOLLOWER = Role("follower", "edge-1", 10.0, known=True)
MINE = "a" * 32


def owner(silent_s: float, token: str = "b" * 32) -> Owner:
    return Owner(token, "node", 7, silent_s)


def watching(*seen: tuple[float, Owner | None]) -> Watch:
    watch = Watch(MINE)
    for now, found in seen:
        watch.saw(found, now)
    return watch


def test_a_store_that_was_never_seen_gives_no_reason_to_take_over() -> None:
    assert Watch(MINE).verdict(FOLLOWER, 1e6) == "wait"


def test_an_owner_that_is_heard_of_is_left_alone() -> None:
    assert watching((0, owner(0.1)), (1000, owner(9.9))).verdict(FOLLOWER, 1000) == "wait"


def test_an_owner_that_was_silent_for_the_time_is_followed_by_a_claim() -> None:
    watch = watching((0, owner(0.1)), (10, owner(10.1)))
    assert watch.verdict(FOLLOWER, 10) == "claim"
    assert watch.silent_s(10) == 10


def test_silence_from_before_the_store_was_seen_does_not_count() -> None:
    watch = watching((0, owner(3600)))
    assert watch.verdict(FOLLOWER, 9.9) == "wait"
    watch.saw(owner(3610), 10)
    assert watch.verdict(FOLLOWER, 10) == "claim"


def test_after_the_store_was_away_the_owner_has_the_whole_time_again() -> None:
    watch = watching((0, owner(0.1)), (9, owner(9)))
    watch.lost()
    assert watch.verdict(FOLLOWER, 100) == "wait"
    assert watch.owner is None
    watch.saw(owner(100), 100)
    assert watch.verdict(FOLLOWER, 109) == "wait"
    watch.saw(owner(1), 109)
    assert watch.verdict(FOLLOWER, 111) == "wait"


def test_a_name_that_was_let_go_of_is_taken_after_the_time_and_not_at_a_restart() -> None:
    watch = watching((0, owner(0.1)), (100, None))
    assert watch.verdict(FOLLOWER, 105) == "wait"
    watch.saw(owner(0), 105)
    watch.saw(None, 106)
    assert watch.verdict(FOLLOWER, 115) == "wait"
    assert watch.verdict(FOLLOWER, 116) == "claim"


def test_by_hand_alone_nothing_is_ever_taken() -> None:
    by_hand = Role("follower", "edge-1", None, known=True)
    assert watching((0, owner(0)), (1e6, owner(1e6))).verdict(by_hand, 1e6) == "wait"


def test_a_name_whose_policy_was_never_had_is_not_taken() -> None:
    unknown = Role("follower", "edge-1", 10.0)
    assert watching((0, None), (1e6, None)).verdict(unknown, 1e6) == "wait"


def test_a_takeover_that_was_cut_short_is_finished_though_only_by_hand() -> None:
    for role in (FOLLOWER, Role("follower", "edge-1", None)):
        assert watching((0, owner(0, MINE))).verdict(role, 0) == "finish"


def test_who_follows_nobody_takes_nothing() -> None:
    for role in (Role(), Role("successor", "edge-1")):
        assert watching((0, owner(0, MINE))).verdict(role, 1e6) == "wait"


@pytest.mark.parametrize("role", [Role(), FOLLOWER, Role("successor", "edge-1")])
def test_a_role_is_the_same_after_the_state(role: Role) -> None:
    assert role_in(role.text()) == role


@pytest.mark.parametrize(
    "text", ["", "{}{", "[1]", '{"kind": "king"}', '{"kind": "follower"}', '{"later": 1}', '"own"']
)
def test_a_row_that_says_no_role_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        role_in(text)


def test_only_a_successor_has_another_name_in_the_stores() -> None:
    settings = Settings.model_validate({"store": {"name": "edge-2"}})
    assert named(settings, Role()).store.name == "edge-2"
    assert named(settings, FOLLOWER).store.name == "edge-2"
    assert named(settings, Role("successor", "edge-1")).store.name == "edge-1"
