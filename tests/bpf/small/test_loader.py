# SPDX-License-Identifier: Apache-2.0
"""Building, adopting and upgrading a small program over the real maps; what stands in the way is named."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.nobody import AS_NOBODY
from support.small_program import HEAD, SIZES, write
from valkyrie.control.dataplane import bpf, build, pins, source
from valkyrie.control.dataplane.complaint import Rejected
from valkyrie.control.dataplane.maps import Dataplane
from valkyrie.control.errors import PermissionRefused, Unavailable

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")


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
