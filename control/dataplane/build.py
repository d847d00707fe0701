# SPDX-License-Identifier: Apache-2.0
"""Adopt the pinned program, or build a new one in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from valkyrie.control.dataplane import bpf, layout, pins, source, values
from valkyrie.control.dataplane.complaint import Rejected
from valkyrie.control.errors import (
    Conflict,
    DataplaneError,
    NotFound,
    PermissionRefused,
    StateError,
    Unavailable,
    ValkyrieError,
)

LOADER = "valkyrie.control.dataplane.loader"
SECONDS = 300  # some hundred times what it takes; valkyried.service gives a start a minute more
ERRORS: dict[str, type[ValkyrieError]] = {
    kind.code: kind
    for kind in (Conflict, DataplaneError, NotFound, PermissionRefused, StateError, Unavailable)
}


@dataclass(frozen=True)
class Build:
    """What identifies a loaded program; kept in <state_dir>/build.json."""

    abi: int
    digest: str
    tag: str
    prog_id: int
    map_ids: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """What `ensure` did: `adopted` compiled nothing; `built` made maps; `upgraded` kept them."""

    how: Literal["adopted", "built", "upgraded"]
    build: Build
    seconds: float


def read_record(path: Path) -> Build | None:
    """The last build's identity; None if there is none, or none that can be read as one."""
    try:
        found = json.loads(path.read_text())
        return Build(
            int(found["abi"]), str(found["digest"]), str(found["tag"]), int(found["prog_id"]),
            tuple(int(identity) for identity in found["map_ids"]),
        )  # fmt: skip
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # damaged: building anew is always right


def write_record(path: Path, build: Build) -> None:
    """Replace the record whole. Raises StateError if it cannot be written."""
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("w") as file:
            json.dump(asdict(build), file)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    except OSError as error:
        raise StateError(f"writing {path}: {error.strerror}", "free some space or mend the rights") from error


def adoptable(pin_dir: Path, sizes: source.Sizes, record: Build | None, wanted: str) -> bool:
    """Whether what is pinned is the program of this source and these sizes, whole.

    After a reboot bpffs is empty, so a record alone proves nothing.
    """
    if record is None or record.digest != wanted or record.abi != layout.abi_version():
        return False
    needed = {table.name for table in layout.tables(sizes)} | layout.UNMAPPED | {pins.PROGRAM}
    if not needed <= pins.pinned(pin_dir) or layout.misfits(pin_dir, sizes):
        return False
    with bpf.opened(pin_dir / pins.PROGRAM) as fd:
        info = bpf.prog_info(fd)
    return info.id == record.prog_id and info.tag == record.tag


def run_loader(
    pin_dir: Path, sizes: source.Sizes, main: Path = source.MAIN, *, more: Sequence[str] = ()
) -> dict[str, Any]:
    """The loader's answer. Raises what the loader raised; leaves no new pin behind a failure.

    One loader at a time works on a pin directory: that of a daemon that was killed ends with it, and while it
    is there still, the next waits.
    """
    with pins.locked(pin_dir, SECONDS) as lock:
        return _run_alone(pin_dir, sizes, main, more, lock)


def _run_alone(
    pin_dir: Path, sizes: source.Sizes, main: Path, more: Sequence[str], lock: int
) -> dict[str, Any]:
    before = pins.pinned(pin_dir)
    command = [
        sys.executable, "-m", LOADER, "--pin-dir", str(pin_dir), "--source", str(main), *more,
        "--sets", str(sizes.sets), "--nodes", str(sizes.nodes), "--cpus", str(sizes.cpus),
        "--parent", str(os.getpid()),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        done = subprocess.run(
            command, env=environment, pass_fds=(lock,), capture_output=True, text=True, timeout=SECONDS,
            check=False,
        )  # fmt: skip
        return _answer(done)
    except subprocess.TimeoutExpired as error:
        pins.remove(pin_dir, pins.pinned(pin_dir) - before)
        raise DataplaneError(
            f"the build took more than {SECONDS} s", "the machine is overloaded: try again"
        ) from error
    except ValkyrieError:
        pins.remove(pin_dir, pins.pinned(pin_dir) - before)
        raise


def _answer(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    if done.returncode < 0:
        raise _died(signal.Signals(-done.returncode), done.stderr)
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise Rejected(f"the loader failed: {last}", "see `valkyrie-ctl doctor`", done.stderr) from error
    if answer["ok"]:
        return dict(answer)
    if answer["log"]:
        raise Rejected(answer["what"], answer["hint"], answer["log"])
    raise ERRORS.get(answer["code"], DataplaneError)(answer["what"], answer["hint"])


def _died(number: signal.Signals, said: str) -> DataplaneError:
    if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        return DataplaneError(f"the build was told to end ({number.name})", "start valkyried again")
    if number == signal.SIGKILL:
        hint = "`dmesg` tells if that was for want of memory: a build takes 150 to 250 MB"
        return DataplaneError("the build was killed", hint)
    return Rejected(f"the compiler crashed ({number.name})", "report it with the BCC version", said)


def ensure(pin_dir: Path, sizes: source.Sizes, record_path: Path, main: Path = source.MAIN) -> Outcome:
    """A loaded and pinned program of this source and these sizes.

    Pinned maps of the same layout are kept with all they hold. Raises Conflict if they have another
    (see migrate.py), Rejected, Unavailable or PermissionRefused; then what was pinned stays in force.
    """
    wanted = source.digest(source.expand(main), sizes)
    record = read_record(record_path)
    pins.prepare(pin_dir)
    if record is not None and adoptable(pin_dir, sizes, record, wanted):
        return Outcome("adopted", record, 0.0)
    how: Literal["built", "upgraded"] = "upgraded" if "buckets" in pins.pinned(pin_dir) else "built"
    return _recorded(how, run_loader(pin_dir, sizes, main), record_path)


def _recorded(how: Literal["built", "upgraded"], answer: Mapping[str, Any], record_path: Path) -> Outcome:
    build = Build(answer["abi"], answer["digest"], answer["tag"], answer["prog_id"], tuple(answer["map_ids"]))
    write_record(record_path, build)
    return Outcome(how, build, float(answer["seconds"]))


def ensure_call(pin_dir: Path, sizes: source.Sizes, record_path: Path, count: int) -> Outcome:
    """The programs for calls, beside the `police` that is pinned there, and room for `count` values.

    Raises as ensure(); then those that were pinned stay. Takes a second if they must be built, so the
    packets' program comes first.
    """
    wanted = source.digest(source.expand(source.CALL_MAIN), sizes)
    record = read_record(record_path)
    if record is not None and _call_adoptable(pin_dir, record, wanted, count):
        return Outcome("adopted", record, 0.0)
    how: Literal["built", "upgraded"] = (
        "upgraded" if source.CALL.programs[0] in pins.pinned(pin_dir) else "built"
    )
    return _recorded(how, run_loader(pin_dir, sizes, more=("--values", str(count))), record_path)


def _call_adoptable(pin_dir: Path, record: Build, wanted: str, count: int) -> bool:
    """Whether the programs of this source are pinned there and work on the buckets that are."""
    needed = {*source.CALL.programs, source.CALL.continuation, values.VALUES, values.LOCKS, "buckets"}
    if record.digest != wanted or not needed <= pins.pinned(pin_dir):
        return False
    with bpf.opened(pin_dir / source.CALL.programs[0]) as fd:
        info = bpf.prog_info(fd)
    with bpf.opened(pin_dir / "buckets") as fd:
        buckets = bpf.map_info(fd).id
    same = info.id == record.prog_id and info.tag == record.tag
    return same and buckets in info.map_ids and values.room(pin_dir) == count
