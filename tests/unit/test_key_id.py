# SPDX-License-Identifier: Apache-2.0
"""Limits for calls alone: what they may say, where they lie in a ruleset, how their buckets are named."""

import numpy as np
import pytest

from valkyrie.adapters.limit import Limit as CallLimit
from valkyrie.adapters.naming import bucket_of
from valkyrie.control import abi
from valkyrie.control.dataplane.call_entry import entry_of
from valkyrie.control.dataplane.keyname import Record, name_of, opaque, record_of
from valkyrie.control.errors import InvalidInput
from valkyrie.control.key import ID, parse_key
from valkyrie.control.limits import Desired, Limit, Override
from valkyrie.control.ruleset.compile import CompiledRuleset, RulesetSettings, SlotUid, compile_ruleset
from valkyrie.control.state.slots import LAST_UID, Allotment, allot

TWENTIES, THIRTIES = 0x2020202020202020 << 64, 0x3030303030303030 << 64


def compiled(*limits: Limit, overrides: tuple[Override, ...] = ()) -> CompiledRuleset:
    return compile_ruleset(
        Desired.of(limits, overrides),
        slots={limit.name: SlotUid(i, i + 1) for i, limit in enumerate(limits)},
        nic_slots={},
        cpus=2,
        settings=RulesetSettings(),
        serial=1,
        mono_now_ns=0,
        wall_now_ns=0,
    )


def test_a_limit_for_calls_matches_no_packet_and_bans_nobody() -> None:
    with pytest.raises(InvalidInput) as caught:
        Limit(name="x", match="proto udp", key="id", rate="1/s")
    assert caught.value.where == "match"
    with pytest.raises(InvalidInput) as caught:
        Limit(name="x", key="id", rate="1/s", action="ban", ban_for="1m")
    assert caught.value.where == "action"
    assert Limit(name="x", key="id", rate="1/s", action="shadow").key_spec == ID


def test_limits_for_calls_lie_last_and_packets_stop_before_them() -> None:
    made = compiled(
        Limit(name="a", key="id", rate="1/s"),
        Limit(name="b", key="src", rate="1/s"),
        Limit(name="c", key="global", rate="1/s"),
    )
    assert made.order == ["c", "b", "a"]
    assert (int(made.header["limits"]), int(made.header["positions"])) == (2, 3)


def test_a_caller_s_whole_key_counts_and_no_cpu_takes_of_it_ahead() -> None:
    row = compiled(Limit(name="a", key="id", rate="1000/s", burst="1000000")).limits[0]
    ones = (1 << 64) - 1
    assert row["mask4"].tolist() == row["mask6"].tolist() == [ones, ones, 0, 0]
    assert int(row["key_fields"]) == abi.KeyField.SRC
    assert int(row["plan"]["batch"]) == 0


def test_a_limit_for_calls_takes_no_overrides() -> None:
    with pytest.raises(InvalidInput, match="no address"):
        compiled(
            Limit(name="a", key="id", rate="1/s"),
            overrides=(Override(limit="a", prefix="10.0.0.0/8", rate="2/s"),),
        )


def test_its_buckets_are_named_by_hash_and_found_by_hash_or_text() -> None:
    record = record_of("user 42", ID)
    shown = name_of(record, ID, 0)
    assert shown == "#" + record.addr.hex()
    assert record_of(shown, ID) == record == opaque("user 42")
    assert (
        bucket_of(CallLimit("m", Limit(name="m", rate="1/s").cost, True), "user 42") == f"m:0000{shown[1:]}"
    )
    with pytest.raises(InvalidInput):
        record_of("", ID)


def test_no_limit_is_given_the_numbers_of_bans_and_callers_own() -> None:
    assert abi.UID_BAN not in range(1, LAST_UID + 1)
    assert abi.UID_CALL not in range(1, LAST_UID + 1)
    assert allot(Allotment({}, (), LAST_UID), {"x": "id"}).slots["x"].uid == 1


@pytest.mark.parametrize(
    ("key", "record", "src", "dst", "ports", "flags"),
    [
        ("global", Record(0, bytes(16)), 0, 0, (0, 0, 0), 0),
        ("dst", Record(0, b"\x20" + bytes(14) + b"\1"), 0, 0x20 << 120 | 1, (0, 0, 0), 0),
        ("src+dport", Record(53, bytes(10) + b"\xff\xff\n\0\0\1"), 0xFFFF0A000001, 0, (0, 53, 0), 0),
        (
            "flow",
            Record(53, b"\n\0\0\1\n\0\0\2\0\7\x11" + bytes(5)),
            0xFFFF0A000001,
            0xFFFF0A000002,
            (7, 53, 17),
            0,
        ),
        ("src+dst6/64", Record(0, b" " * 8 + b"0" * 8, pair6=True), TWENTIES, THIRTIES, (0, 0, 0), 0),
        ("flow", Record(53, b" " * 8 + bytes(7) + b"\5", pair6=True), TWENTIES, None, (0, 53, 0), 1),
    ],
)
def test_an_entry_has_what_the_record_says(
    key: str, record: Record, src: int, dst: int | None, ports: tuple[int, int, int], flags: int
) -> None:
    entry = np.frombuffer(entry_of(record, parse_key(key), 9), abi.CALL_ENTRY)[0]
    assert int.from_bytes(entry["src"].tobytes(), "big") == src
    if dst is None:
        assert int(entry["dst"][0]) == 5
    else:
        assert int.from_bytes(entry["dst"].tobytes(), "big") == dst
    assert (int(entry["sport"]), int(entry["dport"]), int(entry["protocol"])) == ports
    assert (int(entry["flags"]), int(entry["amount"])) == (flags, 9)
