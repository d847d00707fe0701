# SPDX-License-Identifier: Apache-2.0
"""The documents of the control state: they come back as they went, or are refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from valkyrie.adapters.errors import ConsistencyError
from valkyrie.control import abi
from valkyrie.control.durable import document
from valkyrie.control.durable.document import (
    COUNTED,
    LaterVersion,
    check_version,
    pack_counters,
    pack_state,
    read_counters,
    read_state,
)
from valkyrie.control.durable.identity import machine, token_of
from valkyrie.control.errors import StateError
from valkyrie.control.limits import Ban, Desired, Exempt, Limit, Override
from valkyrie.control.service.world import World
from valkyrie.control.state.nics import Nic
from valkyrie.control.state.slots import Allotment, allot

DESIRED = Desired.of(
    [Limit(name="web", key="src", rate="10/s"), Limit(name="dns", key="src/24", rate="5/s", burst="9")],
    [Override(limit="web", prefix="192.0.2.0/24", rate="100/s")],
    [Exempt(prefix="198.51.100.0/24", note="us")],
    [Ban(prefix="203.0.113.7/32", until=2_000_000_000.5)],
)
KEYS = {limit.name: limit.key for limit in DESIRED.limits}
WORLD = World(
    DESIRED,
    {"eth9": Nic("eth9", 3, "generic", ("192.0.2.1/32",)), "eth8": Nic("eth8", 1, "auto", (), 60.0, 1.0)},
    allot(allot(Allotment(), {"old": "src"}), KEYS),
)


def packed(**fields: Any) -> bytes:
    return zstandard.compress(json.dumps(fields).encode())


def test_the_state_comes_back_with_its_numbers_and_the_nics_that_were_no_trial() -> None:
    kept = read_state(pack_state(WORLD, 41, "edge", "here"))
    assert (kept.appliance, kept.serial, kept.machine) == ("edge", 41, "here")
    assert kept.desired == DESIRED
    assert kept.allotment.slots == WORLD.allotment.slots
    assert kept.allotment.last_uid == WORLD.allotment.last_uid
    assert dict(kept.nics) == {"eth9": WORLD.nics["eth9"]}


def test_a_document_without_what_later_ones_have_is_read_with_defaults() -> None:
    kept = read_state(
        packed(
            version=1,
            appliance="edge",
            serial=3,
            policy={"limits": [{"name": "a", "key": "src", "rate": "1/s"}]},
        )
    )
    assert [limit.name for limit in kept.desired.limits] == ["a"]
    assert kept.allotment == allot(Allotment(), {"a": "src"})
    assert (kept.nics, kept.machine) == ({}, "")


def test_a_later_version_is_refused_in_clear_words_and_not_written_over() -> None:
    content = packed(version=2, appliance="edge", serial=3, policy={})
    for reading in (read_state, check_version):
        with pytest.raises(LaterVersion) as caught:
            reading(content)
        assert "later Valkyrie" in caught.value.what
        assert "version 2, known: 1" in caught.value.what
        assert "store.name" in caught.value.hint


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        zstandard.compress(b"nonsense"),
        zstandard.compress(b"[]"),
        packed(version="1"),
        packed(version=0),
        packed(version=1),
        packed(version=1, appliance="a", serial=1, policy={"limits": 3}),
        packed(version=1, appliance="a", serial=1, policy={"limits": [{"name": "a"}]}),
        packed(version=1, appliance="a", serial="x", policy={}),
        packed(version=1, appliance="a", serial=1, policy={}, nics=[{"name": "x"}]),
        packed(version=1, appliance="a", serial=1, policy={}, nics=7),
        packed(version=1, appliance="a", serial=float("inf"), policy={}),
        packed(version=1, appliance="a", serial=1 << 70, policy={}),
        packed(version=1, appliance="a", serial=-1, policy={}),
        packed(version=1, appliance="\ud800", serial=1, policy={}),
        packed(version=1, appliance=["a"], serial=1, policy={}),
        packed(version=1, appliance="a", serial=1, policy={}, last_uid=float("inf")),
        packed(version=1, appliance="a", serial=1, policy={}, machine="\ud800"),
        packed(version=1, appliance="a", serial=1, policy={}, nics=[{"name": "x", "slot": float("inf")}]),
    ],
)
def test_what_is_no_state_is_told_as_damage_and_may_be_written_over(content: bytes) -> None:
    with pytest.raises(ConsistencyError) as caught:
        read_state(content)
    assert "damaged" in caught.value.what
    check_version(content)


@given(
    st.dictionaries(
        st.sampled_from(["web", "dns", "other"]),
        st.fixed_dictionaries(
            {"slot": st.integers(-9, 300), "uid": st.integers(-9, 40_000), "key": st.just("src")}
        ),
    ),
    st.integers(-9, 1 << 40),
)
def test_numbers_that_cannot_be_are_replaced(slots: dict[str, Any], last: int) -> None:
    document = json.loads(zstandard.decompress(pack_state(WORLD, 1, "edge", "")))
    kept = read_state(packed(**document | {"slots": slots, "last_uid": last}))
    numbers = [(one.slot, one.uid) for one in kept.allotment.slots.values()]
    assert kept.allotment.slots.keys() == KEYS.keys()
    assert {name: one.key for name, one in kept.allotment.slots.items()} == KEYS
    assert len({slot for slot, _ in numbers}) == len({uid for _, uid in numbers}) == 2
    assert all(0 <= slot < abi.MAX_LIMITS and 1 <= uid < abi.UID_CALL for slot, uid in numbers)


def test_a_small_document_that_unpacks_to_a_huge_one_is_refused_before_it_is_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(document, "MAX_BYTES", 1 << 20)
    bomb = zstandard.compress(b'{"version":1,"x":"' + b" " * (2 << 20) + b'"}')
    with pytest.raises(ConsistencyError) as caught:
        read_state(bomb)
    assert "more than 1048576 bytes" in caught.value.what


@pytest.mark.parametrize("count", [float("inf"), float("nan"), "x", None, [], {}])
def test_counts_that_are_none_are_told_as_damage(count: object) -> None:
    limits = {"web": {"passed": count, "passed_packets": count}, "dns": {COUNTED[0]: count}}
    with pytest.raises(ConsistencyError) as caught:
        read_counters(packed(version=1, appliance="a", limits=limits), WORLD)
    assert "damaged" in caught.value.what


def test_counters_come_back_to_the_limits_that_there_are() -> None:
    totals = np.zeros(abi.MAX_LIMITS, abi.LIMIT_STATS)
    totals["passed"][WORLD.allotment.slots["web"].slot] = 77
    totals["dropped_bytes"][WORLD.allotment.slots["dns"].slot] = (1 << 63) - 1
    content = pack_counters(WORLD, totals, "edge")
    assert (read_counters(content, WORLD) == totals).all()
    assert not read_counters(content, World(Desired())).view(np.uint64).any()
    with pytest.raises(ConsistencyError):
        read_counters(packed(version=1, limits={"web": {"passed": "many"}}), WORLD)


def test_a_restart_has_the_same_token_and_a_copy_on_another_machine_its_own(tmp_path: Path) -> None:
    numbers = iter([b"a" * 16, b"b" * 16, b"c" * 16])
    path = tmp_path / "sync.token"

    def made(where: str) -> str:
        return token_of(path, where, lambda count: next(numbers))

    first = made("here")
    assert made("here") == first == (b"a" * 16).hex()
    assert made("there") == (b"b" * 16).hex()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("nonsense")
    assert made("there") == (b"c" * 16).hex()
    with pytest.raises(StateError):
        token_of(tmp_path / "no" / "folder", "here", bytes)


def test_a_machine_is_told_by_a_hash_of_its_id_and_never_by_the_id(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("0123456789abcdef0123456789abcdef\n")
    told = machine(tmp_path / "id")
    assert len(told) == 16
    assert told not in (tmp_path / "id").read_text()
    assert machine(tmp_path / "none") != told
