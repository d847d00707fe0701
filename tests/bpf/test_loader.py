# SPDX-License-Identifier: Apache-2.0
"""Building, adopting, upgrading and migrating, by a small program over the real maps."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from support.nobody import AS_NOBODY
from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, build, explain, migrate, packet, pins, source, stats
from valkyrie.control.dataplane.complaint import Rejected
from valkyrie.control.dataplane.events import EventReader
from valkyrie.control.dataplane.maps import Dataplane, initialise
from valkyrie.control.enums import Reason
from valkyrie.control.errors import Conflict, DataplaneError, PermissionRefused, Unavailable

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")

HEAD = """\
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include "abi.h"
#include "maps.h"
static __always_inline struct control *state(void) {
  u32 zero = 0;
  return control.lookup(&zero);
}
"""
BODY = """\
int police(struct xdp_md *ctx) {
  struct control *c = state();
  struct test_control *t = (void *)(long)ctx->data_meta;
  u32 index = c ? c->active & 1 : 0;
  struct ruleset *r = rulesets.lookup(&index);
  if (!c || !r)
    return XDP_PASS;
  if ((void *)(t + 1) <= (void *)(long)ctx->data && t->magic == c->test_magic) {
    t->reason = REASON_LIMIT;
    t->slot = ctx->ingress_ifindex;
  }
  struct event *e = events.ringbuf_reserve(sizeof(*e));
  if (e) {
    __builtin_memset(e, 0, sizeof(*e));
    e->sport = ctx->data_end - ctx->data;
    e->reason = REASON_BAN;
    e->slot = NO_SLOT;
    events.ringbuf_submit(e, 0);
  }
  return r->malformed_drop ? XDP_DROP : XDP_PASS;
}
"""
SIZES = source.Sizes(64, 256, source.possible_cpus())
FRAME = bytes(64)


def write(folder: Path, body: str) -> Path:
    """The program's main file beside the project's own headers."""
    for name in ("abi.h", "maps.h"):
        shutil.copy(source.MAIN.parent / name, folder / name)
    path = folder / "small.bpf.c"
    path.write_text(HEAD + body)
    return path


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return write(tmp_path, BODY)


@pytest.fixture
def pin_dir() -> Iterator[Path]:
    path = Path(f"/sys/fs/bpf/valkyrie-loader-{os.getpid()}")
    yield path
    for place in (path, migrate.aside(path, "next"), migrate.aside(path, "old")):
        pins.remove(place)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The small program, built once for the tests that only use its maps."""
    path = Path(f"/sys/fs/bpf/valkyrie-shared-{os.getpid()}")
    build.run_loader(path, SIZES, write(tmp_path_factory.mktemp("small"), BODY))
    yield path
    pins.remove(path)


@pytest.fixture
def dp(built: Path) -> Iterator[Dataplane]:
    """Its maps, as if just made."""
    with Dataplane(built) as opened:
        for table in (
            opened.control,
            opened.rulesets,
            opened.limit_stats,
            opened.reason_stats,
            opened.table_stats,
        ):
            table[:] = 0
        yield opened


def ruleset(serial: int, *, drop: bool = False, nodes: int = 1) -> Any:
    """A ruleset of nothing but a header and some zero nodes."""
    header = np.zeros((), abi.RULESET)
    header["serial"], header["malformed_drop"] = serial, drop
    return SimpleNamespace(
        header=header,
        limits=np.zeros(0, abi.LIMIT),
        plans=np.zeros(1, abi.PLAN),
        nodes=np.zeros(nodes, abi.NODE),
        classes=np.zeros(1, abi.BITMAP),
        fields=np.zeros(1, abi.FIELD_BLOCK),
        guards=np.zeros(1, abi.GUARD),
    )


def verdict(dp: Dataplane) -> int:
    return bpf.test_run(dp.fd(pins.PROGRAM), FRAME)[0]


def test_the_command_answers_with_the_programs_identity(main: Path, pin_dir: Path) -> None:
    answer = build.run_loader(pin_dir, SIZES, main)
    with bpf.opened(pin_dir / pins.PROGRAM) as fd:
        info = bpf.prog_info(fd)
    assert (info.id, info.tag, info.name) == (answer["prog_id"], answer["tag"], "police")
    assert answer["digest"] == source.digest(source.expand(main), SIZES)


def test_a_second_start_adopts_and_compiles_nothing(main: Path, pin_dir: Path, tmp_path: Path) -> None:
    record = tmp_path / "build.json"
    first = build.ensure(pin_dir, SIZES, record, main)
    again = build.ensure(pin_dir, SIZES, record, main)
    assert (first.how, again.how) == ("built", "adopted")
    assert again.build == first.build


def test_a_changed_source_upgrades_and_keeps_the_maps(main: Path, pin_dir: Path, tmp_path: Path) -> None:
    record = tmp_path / "build.json"
    first = build.ensure(pin_dir, SIZES, record, main)
    with Dataplane(pin_dir) as dp:
        dp.buckets["tat"][7, 3] = 12345
    main.write_text(main.read_text().replace("return XDP_PASS", "return XDP_DROP", 1))
    second = build.ensure(pin_dir, SIZES, record, main)
    assert second.how == "upgraded"
    assert second.build.map_ids == first.build.map_ids
    assert second.build.prog_id != first.build.prog_id
    with Dataplane(pin_dir) as dp:
        assert dp.buckets["tat"][7, 3] == 12345


@pytest.mark.parametrize("name", ["continuation", "events", pins.PROGRAM])
def test_what_lost_a_pin_is_not_adopted_but_built_again(
    name: str, main: Path, pin_dir: Path, tmp_path: Path
) -> None:
    record = tmp_path / "build.json"
    build.ensure(pin_dir, SIZES, record, main)
    (pin_dir / name).unlink()
    assert build.ensure(pin_dir, SIZES, record, main).how == "upgraded"
    assert name in pins.pinned(pin_dir)


@pytest.mark.parametrize("damage", ["{", "[]", '{"abi": "x"}', ""])
def test_a_damaged_record_only_costs_a_build(damage: str, main: Path, pin_dir: Path, tmp_path: Path) -> None:
    record = tmp_path / "build.json"
    build.ensure(pin_dir, SIZES, record, main)
    record.write_text(damage)
    assert build.ensure(pin_dir, SIZES, record, main).how == "upgraded"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "int police(struct xdp_md *ctx) {\n  return nothing;\n}\n",
            r"small\.bpf\.c line 10: use of undeclared",
        ),
        (
            "int police(struct xdp_md *ctx) {\n  int a;\n  absent();\n  return 2;\n}\n",
            r"line 11: .*implicit (function )?decl",
        ),
        (
            "int police(struct xdp_md *ctx) {\n  u8 *p = (void *)(long)ctx->data;\n\n  return p[3];\n}\n",
            r"invalid access to packet.*instruction \d+",
        ),
    ],
)
def test_a_refused_program_is_named_by_cause_and_place_and_leaves_no_pin(
    body: str, said: str, pin_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(Rejected, match=said) as caught:
        build.run_loader(pin_dir, SIZES, write(tmp_path, body))
    assert caught.value.log
    assert pins.pinned(pin_dir) == set()


def test_a_failed_upgrade_leaves_the_old_program_and_its_maps(
    main: Path, pin_dir: Path, tmp_path: Path
) -> None:
    record = tmp_path / "build.json"
    first = build.ensure(pin_dir, SIZES, record, main)
    before = pins.pinned(pin_dir)
    main.write_text(HEAD + "int police(struct xdp_md *ctx) { return nothing; }\n")
    with pytest.raises(Rejected):
        build.ensure(pin_dir, SIZES, record, main)
    assert pins.pinned(pin_dir) == before
    with bpf.opened(pin_dir / pins.PROGRAM) as fd:
        assert bpf.prog_info(fd).id == first.build.prog_id


def test_a_loader_ends_with_the_daemon_that_started_it_and_the_next_one_builds(
    main: Path, pin_dir: Path
) -> None:
    begin = (
        "import sys; from pathlib import Path; from valkyrie.control.dataplane import build, source\n"
        "build.run_loader(Path(sys.argv[1]), source.Sizes(*map(int, sys.argv[3:])), Path(sys.argv[2]))"
    )
    sizes = [str(SIZES.sets), str(SIZES.nodes), str(SIZES.cpus)]
    daemon = subprocess.Popen(
        [sys.executable, "-c", begin, str(pin_dir), str(main), *sizes],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    loader = None
    try:
        deadline = time.monotonic() + 30
        while (loader := child_of(daemon.pid)) is None or not pins.pinned(pin_dir):
            assert daemon.poll() is None
            assert time.monotonic() < deadline
        os.kill(loader, signal.SIGSTOP)  # half way: some maps are pinned, and no program
        daemon.kill()
        daemon.wait()
        while Path(f"/proc/{loader}").exists() and state_of(loader) != "Z":
            assert time.monotonic() < deadline, "it would go on, and may remove what the next daemon pins"
            time.sleep(0.01)
        answer = build.run_loader(pin_dir, SIZES, main)
        with bpf.opened(pin_dir / pins.PROGRAM) as fd:
            assert bpf.prog_info(fd).id == answer["prog_id"]
    finally:
        daemon.kill()
        daemon.wait()
        if loader is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(loader, signal.SIGKILL)


def child_of(pid: int) -> int | None:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def test_two_do_not_build_in_one_directory_at_once(
    main: Path, pin_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "SECONDS", 0.1)
    with pins.locked(pin_dir, 1.0) as lock:
        holder = subprocess.Popen(["sleep", "60"], pass_fds=(lock,))
    try:  # the one that took the lock is gone, and what it started holds it
        with pytest.raises(Unavailable, match="another process has been building"):
            build.run_loader(pin_dir, SIZES, main)
        assert pins.pinned(pin_dir) == set()
    finally:
        holder.kill()
        holder.wait()
    with pins.locked(pin_dir, 1.0):
        pass


def test_another_size_is_a_conflict_that_names_the_maps(main: Path, pin_dir: Path) -> None:
    build.run_loader(pin_dir, SIZES, main)
    with pytest.raises(Conflict, match="buckets: 64 entries, 128 needed"):
        build.run_loader(pin_dir, source.Sizes(128, SIZES.nodes, SIZES.cpus), main)


@pytest.mark.parametrize("sets", [32, 256])
def test_a_migration_carries_live_buckets_to_another_size(
    sets: int, main: Path, pin_dir: Path, tmp_path: Path
) -> None:
    build.run_loader(pin_dir, SIZES, main)
    now_ns = time.monotonic_ns()
    later = (now_ns + 60 * 10**9) << abi.TIME_SHIFT
    wanted = {(9 << 32) + 70 * n: later + n for n in range(1, 100)}
    with Dataplane(pin_dir) as dp:
        initialise(dp, (11, 22), 33)
        names = np.zeros(len(wanted), abi.BUCKET_KEY)
        names["dport"] = np.arange(1, 100)
        found = migrate.Debts(
            np.array(list(wanted), np.uint64), np.array(list(wanted.values()), np.uint64), names
        )
        assert migrate.place(dp, found) == 0
        dp.buckets["fingerprint"][0, 7], dp.buckets["tat"][0, 7] = 640, 1
    sizes = source.Sizes(sets, SIZES.nodes, SIZES.cpus)
    assert migrate.needed(pin_dir, sizes)
    migrate.begin(
        pin_dir,
        sizes,
        tmp_path / "build.json",
        publish=lambda dp: dp.publish(ruleset(5)),
        now_ns=lambda: now_ns,
        main=main,
    )
    with Dataplane(migrate.aside(pin_dir, "old")) as dp:
        row, way = (axis[0] for axis in np.nonzero(dp.buckets["fingerprint"] == (9 << 32) + 70))
        dp.buckets["tat"][row, way] = later + 500
    migrate.finish(pin_dir, now_ns)
    wanted[(9 << 32) + 70] = later + 500
    with Dataplane(pin_dir) as dp:
        used = dp.buckets["fingerprint"] != 0
        held = dict(
            zip(dp.buckets["fingerprint"][used].tolist(), dp.buckets["tat"][used].tolist(), strict=True)
        )
        rows = np.nonzero(used)[0]
        assert ((dp.buckets["fingerprint"][used] & np.uint64(sets - 1)) == rows).all()
        assert dp.control["secret"][0].tolist() == [11, 22]
        assert (dp.serial, len(dp.buckets)) == (5, sets)
    assert held == wanted
    assert not migrate.needed(pin_dir, sizes)
    assert not migrate.aside(pin_dir, "old").exists()


def words_of_abi_1(dp: Dataplane) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The bucket table as ABI 1 laid it out: (sets, fingerprints or TATs, way)."""
    return dp.buckets.view(np.uint64).reshape(-1, 2, abi.WAYS)


def test_a_table_of_abi_1_is_migrated_and_no_bucket_is_forgotten(
    main: Path, pin_dir: Path, tmp_path: Path
) -> None:
    build.run_loader(pin_dir, SIZES, main)
    now_ns = time.monotonic_ns()
    later = (now_ns + 60 * 10**9) << abi.TIME_SHIFT
    held: dict[int, tuple[int, int]] = {}
    with Dataplane(pin_dir) as dp:
        initialise(dp, (11, 22), 33)
        assert not migrate.needed(pin_dir, SIZES)
        for number in range(SIZES.sets * abi.WAYS):
            place, way = number % SIZES.sets, number // SIZES.sets
            fingerprint = (0x9E3779B97F4A7C15 * (number + 1)) % 2**64 // SIZES.sets * SIZES.sets + place
            words_of_abi_1(dp)[place, :, way] = fingerprint, later + number
            dp.bucket_keys["key"]["dport"][place, way] = number
            held[fingerprint] = (later + number, number)
        dp.control["abi"] = 1
    assert migrate.needed(pin_dir, SIZES)
    migrate.begin(
        pin_dir,
        SIZES,
        tmp_path / "build.json",
        publish=lambda dp: dp.publish(ruleset(5)),
        now_ns=lambda: now_ns,
        main=main,
    )
    assert migrate.unfinished(pin_dir)
    with Dataplane(migrate.aside(pin_dir, "old")) as dp:  # the old program goes on until the last NIC
        fingerprint = int(words_of_abi_1(dp)[5, 0, 6])
        words_of_abi_1(dp)[5, 1, 6] += np.uint64(500)
        held[fingerprint] = (held[fingerprint][0] + 500, held[fingerprint][1])
    migrate.finish(pin_dir, now_ns)
    assert not migrate.unfinished(pin_dir)
    assert not migrate.needed(pin_dir, SIZES)
    with Dataplane(pin_dir) as dp:
        assert initialise(dp, (1, 2), 3) is False
        assert dp.control["secret"][0].tolist() == [11, 22]
        tats = zip(
            dp.buckets["tat"].ravel().tolist(), dp.bucket_keys["key"]["dport"].ravel().tolist(), strict=True
        )
        assert dict(zip(dp.buckets["fingerprint"].ravel().tolist(), tats, strict=True)) == held


def test_a_table_of_an_abi_to_come_is_refused_and_stays(main: Path, pin_dir: Path, tmp_path: Path) -> None:
    build.run_loader(pin_dir, SIZES, main)
    with Dataplane(pin_dir) as dp:
        initialise(dp, (11, 22), 33)
        dp.control["abi"] = abi.ABI_VERSION + 1
    before = pins.pinned(pin_dir)
    assert migrate.needed(pin_dir, SIZES)
    with pytest.raises(Conflict, match=rf"not known here \(ABI {abi.ABI_VERSION + 1}\)"):
        migrate.begin(
            pin_dir,
            SIZES,
            tmp_path / "build.json",
            publish=lambda dp: dp.publish(ruleset(5)),
            now_ns=time.monotonic_ns,
            main=main,
        )
    assert pins.pinned(pin_dir) == before
    assert not migrate.aside(pin_dir, "next").exists()


def test_maps_that_no_packet_met_are_no_hindrance_to_another_size(main: Path, pin_dir: Path) -> None:
    build.run_loader(pin_dir, SIZES, main)
    (pin_dir / pins.PROGRAM).unlink()  # the loader was killed before the end
    assert not migrate.needed(pin_dir, source.Sizes(256, SIZES.nodes, SIZES.cpus))
    assert pins.pinned(pin_dir) == set()


def test_a_failed_migration_leaves_everything_as_it_was(main: Path, pin_dir: Path, tmp_path: Path) -> None:
    build.run_loader(pin_dir, SIZES, main)

    def refuse(_: Dataplane) -> None:
        raise DataplaneError("no room")

    with pytest.raises(DataplaneError, match="no room"):
        migrate.begin(
            pin_dir,
            source.Sizes(256, 256, SIZES.cpus),
            tmp_path / "b",
            publish=refuse,
            now_ns=lambda: 0,
            main=main,
        )
    with Dataplane(pin_dir) as dp:
        assert len(dp.buckets) == SIZES.sets
    assert not migrate.aside(pin_dir, "next").exists()


def test_a_crash_between_the_renames_is_recovered(main: Path, pin_dir: Path) -> None:
    build.run_loader(pin_dir, SIZES, main)
    pin_dir.rename(migrate.aside(pin_dir, "old"))
    assert not migrate.needed(pin_dir, SIZES)
    assert pins.PROGRAM in pins.pinned(pin_dir)


def test_a_published_ruleset_is_in_force_at_once_and_alternates_generations(dp: Dataplane) -> None:
    for serial in range(1, 7):
        dp.publish(ruleset(serial, drop=serial % 2 == 1))
        assert verdict(dp) == (1 if serial % 2 else 2)
        assert (dp.serial, dp.active) == (serial, serial % 2)


def test_a_ruleset_that_does_not_fit_is_refused_whole(dp: Dataplane) -> None:
    dp.publish(ruleset(1, drop=True))
    with pytest.raises(DataplaneError, match="257 nodes, the table has room for 256"):
        dp.publish(ruleset(2, nodes=257))
    assert (dp.serial, verdict(dp)) == (1, 1)


def test_an_adopted_table_keeps_its_secret(dp: Dataplane) -> None:
    assert initialise(dp, (1, 2), 3) is True
    with Dataplane(dp.pin_dir) as again:
        assert initialise(again, (7, 8), 9) is False
        assert again.control["secret"][0].tolist() == [1, 2]
        assert int(again.control["test_magic"][0]) == 3


def test_a_table_of_another_abi_is_refused(dp: Dataplane) -> None:
    dp.control["abi"] = abi.ABI_VERSION + 1
    with pytest.raises(Conflict, match=f"speaks ABI {abi.ABI_VERSION + 1}"):
        initialise(dp, (1, 2), 3)


def test_nics_are_set_listed_and_forgotten(dp: Dataplane) -> None:
    dp.set_nic(4, 1)
    dp.set_nic(9, 63)
    assert dp.nics() == {4: 1, 9: 63}
    assert dp.forget_nic(4) is True
    assert dp.forget_nic(4) is False
    with pytest.raises(DataplaneError):
        dp.set_nic(1, 64)


def test_the_programs_own_answer_comes_back_by_metadata(dp: Dataplane) -> None:
    initialise(dp, (1, 2), 3)
    dp.publish(ruleset(1, drop=True))
    answer = explain.run(dp, packet.parse("proto udp iface lo"))
    assert (answer.drops, answer.reason, answer.slot) == (True, Reason.LIMIT, 1)


async def test_events_come_in_order_and_the_ring_wraps_without_loss(dp: Dataplane) -> None:
    with EventReader(dp.pin_dir) as reader:
        reader.read(100_000)
        seen: list[int] = []
        expected: list[int] = []
        rounds = 2 * abi.EVENT_RING_BYTES // (abi.EVENT.itemsize + 8) // 400 + 1
        for _ in range(rounds):
            for length in range(60, 460):
                bpf.test_run(dp.fd(pins.PROGRAM), bytes(length))
            expected += range(60, 460)
            while found := reader.read(100):
                seen += [event.sport for event in found]
        assert seen == expected
        bpf.test_run(dp.fd(pins.PROGRAM), bytes(77))
        async for event in reader.events():
            assert (event.sport, event.reason, event.slot) == (77, Reason.BAN, None)
            break


async def test_events_that_never_end_leave_the_loop_to_others(dp: Dataplane) -> None:
    async def other() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    with EventReader(dp.pin_dir) as reader:
        reader.read(100_000)
        bpf.test_run(dp.fd(pins.PROGRAM), FRAME)
        task, seen = asyncio.ensure_future(other()), 0
        async for _ in reader.events():
            bpf.test_run(dp.fd(pins.PROGRAM), FRAME)
            seen += 1
            if task.done() or seen > 1000:
                break
        assert task.done()


def test_counters_are_summed_over_cpus(dp: Dataplane) -> None:
    dp.limit_stats["dropped"][:, 5] = 7
    dp.reason_stats["bytes"][:, Reason.BAN] = 3
    dp.table_stats["bans"] = 2
    assert stats.limits(dp)["dropped"][5] == 7 * SIZES.cpus
    assert stats.reasons(dp)["bytes"][Reason.BAN] == 3 * SIZES.cpus
    assert stats.table(dp)["bans"] == 2 * SIZES.cpus
    stats.zero(dp, {5})
    assert stats.limits(dp)["dropped"].sum() == 0


def test_nothing_stays_open_after_close(built: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with Dataplane(built) as dp, EventReader(built) as reader:
            verdict(dp)
            reader.read()
            dp.nics()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A BPF file system that nothing can be pinned on."""
    place = tmp_path / "bpffs"
    place.mkdir()
    subprocess.run(["mount", "-t", "bpf", "-o", "ro", "bpf", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_read_only_bpffs_is_told_with_the_remount(main: Path, read_only: Path) -> None:
    with pytest.raises(Unavailable, match="ead-only") as caught:
        build.run_loader(read_only / "valkyrie", SIZES, main)
    assert "remount,rw" in caught.value.hint


def test_a_missing_bpffs_is_mounted(main: Path, tmp_path: Path) -> None:
    place = tmp_path / "bpf"
    try:
        pins.prepare(place / "valkyrie")
        assert pins.is_bpffs(place / "valkyrie")
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _loader(*arguments: str, before: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """The loader as a command, started by the command `before` if there is one, with its answer."""
    command = [*before, sys.executable, "-m", build.LOADER, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    assert done.returncode != 0
    return dict(json.loads(done.stdout))


def _sized(pin_dir: Path) -> list[str]:
    return ["--pin-dir", str(pin_dir), "--sets", "64", "--nodes", "256"]


def test_without_permission_it_says_so(main: Path) -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    answer = _loader(
        *_sized(Path("/sys/fs/bpf/valkyrie-nobody")),
        before=AS_NOBODY,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert answer["code"] == PermissionRefused.code
    assert "root" in answer["hint"]


def test_another_project_called_bcc_is_not_taken_for_it(main: Path, pin_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "bcc.py").write_text("lattice = True\n")
    paths = os.pathsep.join([str(tmp_path), *(path for path in sys.path if path)])
    answer = _loader(*_sized(pin_dir), env={**os.environ, "PYTHONPATH": paths})
    assert answer["code"] == Unavailable.code
    assert "python3-bpfcc" in answer["hint"]


def test_without_bcc_it_says_what_to_install(main: Path, pin_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "bcc.py").write_text("raise ImportError('no BCC here')\n")
    paths = os.pathsep.join([str(tmp_path), *(path for path in sys.path if path)])
    answer = _loader(*_sized(pin_dir), env={**os.environ, "PYTHONPATH": paths})
    assert answer["code"] == Unavailable.code
    assert "apt install python3-bpfcc" in answer["hint"]
    assert pins.pinned(pin_dir) == set()
