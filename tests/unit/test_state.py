# SPDX-License-Identifier: Apache-2.0
"""The state: what was written is read back, what failed was not written, and nothing is lost half way."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from valkyrie.control.audit import DAEMON, entry
from valkyrie.control.errors import Conflict, StateError
from valkyrie.control.limits import Ban, Desired, Exempt, Limit, Override
from valkyrie.control.state.nics import NIC_SLOTS, Nic, free_slot
from valkyrie.control.state.policy import change_between
from valkyrie.control.state.slots import LAST_UID, SLOTS, Allotment, Retired, Slot, allot, settled
from valkyrie.control.state.store import State


def secret(size: int) -> bytes:
    return bytes(range(size))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State.open(tmp_path / "state.db", secret)
    yield opened
    opened.close()


def sample() -> Desired:
    return Desired.of(
        limits=[
            Limit(name="web", match="proto tcp dport 80,443", key="src", rate="1000/s", burst="2000"),
            Limit(name="dns", match="proto udp sport 53", key="global", rate="50mbit/s", action="shadow"),
            Limit(
                name="ssh", match="proto tcp dport 22 syn", key="src", rate="6/m", action="ban", ban_for="10m"
            ),
        ],
        overrides=[Override(limit="web", prefix="203.0.113.0/24", rate="5000/s", burst="9000")],
        exempts=[Exempt(prefix="192.0.2.0/24", until=2e9, note="monitoring")],
        bans=[Ban(prefix="2001:db8::/32"), Ban(prefix="198.51.100.7", until=1.9e9)],
    )


def put(state: State, new: Desired) -> None:
    old = state.desired()
    with state.transaction() as transaction:
        transaction.policy(change_between(old, new))


def test_what_was_written_is_read_after_reopening(tmp_path: Path) -> None:
    state = State.open(tmp_path / "state.db", secret)
    put(state, sample())
    state.close()
    again = State.open(tmp_path / "state.db", bytes)
    assert again.desired() == sample()
    again.close()


def test_a_difference_removes_changes_and_adds(state: State) -> None:
    put(state, sample())
    new = Desired.of(
        limits=[Limit(name="web", key="src", rate="7/s"), Limit(name="new", rate="1/s")],
        bans=[Ban(prefix="198.51.100.7", note="again")],
    )
    put(state, new)
    assert state.desired() == new


def test_deleting_a_limit_deletes_its_overrides(state: State) -> None:
    put(state, sample())
    put(state, Desired.of())
    assert state.desired() == Desired.of()


def test_a_block_that_raises_leaves_nothing(state: State) -> None:
    put(state, sample())

    def half() -> None:
        with state.transaction() as transaction:
            transaction.policy(change_between(sample(), Desired.of()))
            transaction.serial(7)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert state.desired() == sample()
    assert state.serial() == 0


def test_the_secret_is_made_once_and_kept_in_a_file_that_only_the_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    State.open(path, secret).close()
    again = State.open(path, lambda size: b"x" * size)
    assert again.secret == bytes(range(16))
    with again.transaction() as transaction:
        transaction.serial(1)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    again.close()
    assert set(modes.values()) == {0o600}, modes


def test_a_second_daemon_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    first = State.open(tmp_path / "state.db", secret)
    with pytest.raises(Conflict):
        State.open(tmp_path / "state.db", secret)
    first.close()
    State.open(tmp_path / "state.db", secret).close()


@pytest.mark.parametrize("where", [0, 8192])
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, where: int) -> None:
    path = tmp_path / "state.db"
    state = State.open(path, secret)
    put(state, sample())
    state.close()
    with path.open("r+b") as file:
        file.seek(where)
        file.write(os.urandom(12288))
    damaged = path.read_bytes()
    with pytest.raises(StateError) as caught:
        State.open(path, secret)
    assert str(path) in caught.value.what
    assert "move" in caught.value.hint
    assert path.read_bytes() == damaged


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    State.open(path, secret).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateError) as caught:
        State.open(path, secret)
    assert "later" in caught.value.what


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def many(count: int) -> tuple[Override, ...]:
    made = (
        Override(limit="web", prefix=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32", rate="5/s")
        for n in range(count)
    )
    return tuple(sorted(made, key=lambda one: one.prefix))


def test_a_full_disk_is_said_and_the_old_state_stays(small_disk: Path) -> None:
    state = State.open(small_disk / "state.db", secret)
    put(state, sample())
    big = replace(sample(), overrides=many(60_000))
    with pytest.raises(StateError) as caught:
        put(state, big)
    assert "disk is full" in caught.value.what
    assert state.desired() == sample()
    put(state, Desired.of())
    assert state.desired() == Desired.of()
    state.close()


def test_a_read_only_disk_is_said(small_disk: Path) -> None:
    State.open(small_disk / "state.db", secret).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StateError) as caught:
        State.open(small_disk / "state.db", secret)
    assert "read-only" in caught.value.hint


def test_a_hundred_thousand_overrides_are_written_within_ten_seconds(state: State) -> None:
    new = replace(sample(), overrides=many(100_000))
    started = time.monotonic()
    put(state, new)
    assert time.monotonic() - started < 10
    assert state.desired().overrides == new.overrides


KILLED = """
    import sys
    from pathlib import Path
    from valkyrie.control.limits import Ban, Desired
    from valkyrie.control.state.policy import change_between
    from valkyrie.control.state.store import State
    state = State.open(Path(sys.argv[1]), bytes)
    old = Desired.of()
    for n in range(100_000):
        prefix = f"10.0.{n >> 8 & 255}.{n & 255}"
        new = Desired.of(bans=[Ban(prefix=prefix), Ban(prefix="192.0.2.1", note=str(n))])
        with state.transaction() as transaction:
            transaction.policy(change_between(old, new))
            transaction.serial(n)
        old = new
        print(n, flush=True)
"""


def test_kill_9_loses_no_acknowledged_change_and_leaves_no_half(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.stdout if line.endswith(b"\n")]
    state = State.open(path, secret)
    serial = state.serial()
    notes = {ban.prefix: ban.note for ban in state.desired().bans}
    state.close()
    assert serial in (told[-1], told[-1] + 1)
    assert notes == {f"10.0.{serial >> 8 & 255}.{serial & 255}/32": "", "192.0.2.1/32": str(serial)}


def test_the_audit_log_keeps_the_newest(state: State) -> None:
    for n in range(250):
        with state.transaction() as transaction:
            transaction.audit(entry(float(n), DAEMON, "test", str(n), {"n": n}), keep=100)
    entries = state.audit(1000)
    assert [one.target for one in entries] == [str(n) for n in range(249, 149, -1)]


def test_an_audit_entry_is_bounded() -> None:
    made = entry(0.0, DAEMON, "test", "x" * 10_000, {"match": "y" * 100_000})
    assert len(made.target) <= 256
    assert len(made.detail) <= 4096


def test_nics_come_back_with_protects_and_trial(state: State) -> None:
    nic = Nic("eth9", 3, "auto", ("192.0.2.1/32", "2001:db8::1/128"), 60.0, 1000.0)
    with state.transaction() as transaction:
        transaction.put_nic(nic)
    assert state.nics() == {"eth9": nic}
    with state.transaction() as transaction:
        transaction.put_nic(replace(nic, confirm=None, deadline=None, protect=()))
    assert state.nics() == {"eth9": Nic("eth9", 3, "auto")}
    with state.transaction() as transaction:
        transaction.drop_nic("eth9")
    assert state.nics() == {}


def test_a_clock_set_back_cannot_prolong_a_trial() -> None:
    nic = Nic("eth9", 1, "auto", (), 60.0, 1060.0)
    assert nic.remaining(1000.0) == 60
    assert nic.remaining(10.0) == 60
    assert nic.remaining(1059.0) == 1
    assert nic.remaining(2000.0) == 0
    assert replace(nic, confirm=None, deadline=None).remaining(0) is None


def test_nic_slots_are_1_to_63_and_no_more() -> None:
    nics: dict[str, Nic] = {}
    for _ in range(NIC_SLOTS - 1):
        slot = free_slot(nics)
        nics[f"v{slot}"] = Nic(f"v{slot}", slot, "auto")
    assert {nic.slot for nic in nics.values()} == set(range(1, 64))
    with pytest.raises(Conflict):
        free_slot(nics)


def test_limits_that_stay_keep_slot_and_uid() -> None:
    first = allot(Allotment(), {"a": "src", "b": "global"})
    second = allot(first, {"b": "global", "c": "src"})
    assert second.slots["b"] == first.slots["b"]
    assert second.retired == (Retired(first.slots["a"].uid, first.slots["a"].slot),)


def test_another_key_means_another_uid_and_the_same_counters() -> None:
    first = allot(Allotment(), {"a": "src"})
    second = allot(first, {"a": "dst"})
    assert second.slots["a"].slot == first.slots["a"].slot
    assert second.slots["a"].uid != first.slots["a"].uid
    assert second.retired == (Retired(first.slots["a"].uid, None),)


def test_a_retired_slot_and_uid_wait_for_the_purge() -> None:
    first = allot(Allotment(), {"a": "src"})
    gone = allot(first, {})
    again = allot(gone, {"a": "src"})
    assert again.slots["a"].uid != first.slots["a"].uid
    assert again.slots["a"].slot != first.slots["a"].slot
    after = settled(again, gone.retired)
    assert after.retired == ()
    assert allot(after, {"a": "src", "b": "src"}).slots["b"].slot == first.slots["a"].slot


def test_uids_go_round_and_never_hit_one_in_use_or_retired() -> None:
    near_the_end = Allotment({"keep": Slot("keep", "src", 0, 1)}, (Retired(2, 5),), LAST_UID - 1)
    made = allot(near_the_end, {"keep": "src", "x": "src", "y": "src"})
    assert {made.slots["x"].uid, made.slots["y"].uid} == {LAST_UID, 3}
    assert made.last_uid == 3


def test_256_limits_fit_and_one_more_does_not() -> None:
    full = allot(Allotment(), {f"l{n}": "src" for n in range(SLOTS)})
    assert {slot.slot for slot in full.slots.values()} == set(range(256))
    with pytest.raises(Conflict):
        allot(full, {f"l{n}": "src" for n in range(SLOTS + 1)})


def test_256_limits_can_all_give_way_to_others_at_once() -> None:
    full = allot(Allotment(), {f"l{n}": "src" for n in range(SLOTS)})
    other = allot(full, {f"m{n}": "src" for n in range(SLOTS)})
    assert {slot.slot for slot in other.slots.values()} == set(range(SLOTS))
    assert {slot.uid for slot in other.slots.values()}.isdisjoint(slot.uid for slot in full.slots.values())
    assert {entry.slot for entry in other.retired} == set(range(SLOTS))


def test_a_slot_that_waits_is_given_only_where_there_is_no_other() -> None:
    nearly = allot(Allotment(), {f"l{n}": "src" for n in range(SLOTS - 1)})
    renamed = allot(nearly, {"m": "src", **{f"l{n}": "src" for n in range(1, SLOTS - 1)}})
    assert renamed.slots["m"].slot == SLOTS - 1


def test_an_allotment_is_read_as_it_was_written(state: State) -> None:
    first = allot(Allotment(), {"a": "src", "b": "global", "c": "flow"})
    second = allot(first, {"a": "dst", "c": "flow", "d": "src"})
    for old, new in ((Allotment(), first), (first, second)):
        with state.transaction() as transaction:
            transaction.allotment(old, new)
    assert state.allotment() == second


def test_a_limit_that_this_version_does_not_take_is_named(state: State) -> None:
    ours = Limit(name="ssh", rate="1/s", key="src", action="ban", ban_for="1h")
    with state.transaction() as transaction:
        transaction.policy(change_between(Desired(), Desired.of([ours])))
    with state.transaction():
        state._database.connection.execute("UPDATE limits SET ban_for = '3650d'")
    with pytest.raises(StateError) as caught:
        state.desired()
    assert "limit ssh" in caught.value.what
    assert "at most 833d" in caught.value.hint
