# SPDX-License-Identifier: Apache-2.0
"""Compile, load and pin, in a process of its own so that LLVM's memory goes with it.

    python -m valkyrie.control.dataplane.loader --pin-dir /sys/fs/bpf/valkyrie --sets 131072 --nodes 262144

Prints one JSON object: the program's id, tag and maps, or the error's code, what, hint and log.
Maps that are pinned already are opened and keep what they hold. The program takes the name
`police` only when all has succeeded; after a failure nothing is pinned that was not before.
With --values N it builds the programs `call` and `value` beside it instead.
"""

import argparse
import ctypes
import faulthandler
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, complaint, headers, layout, pins, source, values
from valkyrie.control.dataplane.complaint import Rejected
from valkyrie.control.errors import PermissionRefused, Unavailable, ValkyrieError

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def import_bcc() -> Any:
    """BCC's Python module. Raises Unavailable when it is not there, or is another `bcc`."""
    hint = "install it: apt install python3-bpfcc"
    try:
        import bcc  # noqa: PLC0415 - may be missing
    except (ImportError, OSError) as error:
        raise Unavailable(f"no BCC: {error}", hint) from error
    if not hasattr(bcc, "BPF"):
        raise Unavailable(f"{bcc.__file__} is not the BPF Compiler Collection", f"pip uninstall bcc; {hint}")
    return bcc


@contextmanager
def _stderr_into(file: BinaryIO) -> Iterator[None]:
    """Catch what BCC's C++ side writes to the process's standard error."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _said(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _compile(bcc: Any, text: str, flags: list[str], log: BinaryIO) -> Any:
    """The BCC module, its maps made and pinned."""
    with headers.header_tree() as tree, _stderr_into(log):
        os.environ["BCC_KERNEL_SOURCE"] = str(tree)
        try:
            return bcc.BPF(text=text, cflags=flags)
        except Exception as error:  # noqa: BLE001 - BCC raises nothing narrower
            number, failure = ctypes.get_errno(), error
    said = _said(log)
    found = complaint.compiler(said)
    if found:
        raise Rejected(f"the program does not compile: {found}", "report it with the BCC version", said)
    if "permitted" in said or os.geteuid() != 0:
        raise PermissionRefused("making the program's maps: not permitted", "run it as root")
    reason = (said.strip().splitlines() or [str(failure)])[-1]
    raise Rejected(
        f"BCC could not make the program: {reason}",
        "the table may be too large for this machine's memory: choose a smaller table.buckets"
        if number in (12, 7)
        else "see `valkyrie-ctl doctor`",
        said,
    )


def _load(bcc: Any, module: Any, function: str, log: BinaryIO) -> int:
    """The descriptor of one function's program, which the module owns."""
    with _stderr_into(log):
        try:
            return int(module.load_func(function, bcc.BPF.XDP).fd)
        except Exception as error:  # noqa: BLE001 - BCC raises nothing narrower
            failure = error
    said = _said(log)
    if "super-user" in str(failure):
        raise PermissionRefused("loading the program: not permitted", "run it as root")
    if "insns" not in said:
        raise Rejected(f"the kernel took no XDP program: {failure}", "Linux 5.15 or newer is needed", said)
    cause = complaint.verifier(said)
    raise Rejected(f"the kernel's verifier refused the program: {cause}", "report it with `uname -r`", said)


def _continue_with(fd: int, array_path: Path, place: int) -> None:
    """Let the program's tail calls find their continuation: each build has a place of its own, so
    that an older build still attached goes on with the code it was made for.
    """
    with bpf.opened(array_path) as array:
        bpf.map_update(array, place.to_bytes(4, sys.byteorder), fd.to_bytes(4, sys.byteorder))


def _pin(fd: int, path: Path) -> None:
    """Pin beside the old program and rename over it, so that there is always one."""
    fresh = path.with_name(f"{path.name}_new")  # bpffs takes no dot in a name
    fresh.unlink(missing_ok=True)
    bpf.obj_pin(fd, fresh)
    fresh.rename(path)


def load(
    pin_dir: Path, sizes: source.Sizes, main: Path = source.MAIN, face: source.Face = source.POLICE
) -> dict[str, Any]:
    """Compile, load and pin; the first program's identity.

    Raises Conflict if pinned maps do not fit (a migration is needed), Rejected if the compiler or
    verifier says no, Unavailable or PermissionRefused for what the host lacks.
    """
    started = time.monotonic()
    bcc = import_bcc()
    text = source.expand(main)
    pins.prepare(pin_dir)
    layout.check(pin_dir, sizes)
    before = pins.pinned(pin_dir)
    place = int(source.digest(text, sizes), 16) % abi.CONTINUATIONS
    flags = [
        *sizes.flags(),
        f"-DCONTINUE_AT={place}",
        f'-DPIN_DIR="{pin_dir}"',
        "-Wall",
        "-Wno-unused-function",
        "-Werror",
    ]
    try:
        with tempfile.TemporaryFile() as log:
            module = _compile(bcc, text, flags, log)
            fds = {name: _load(bcc, module, name, log) for name in face.programs}
            if face.continued in text:
                more = fds.get(face.continued) or _load(bcc, module, face.continued, log)
                _continue_with(more, pin_dir / face.continuation, place)
            for nth, name in enumerate(face.watchers):
                if name in text:
                    fd = _load(bcc, module, name, log)
                    _continue_with(fd, pin_dir / "watchers", abi.CONTINUATIONS * nth + place)
        layout.check(pin_dir, sizes)
        for name, fd in fds.items():
            _pin(fd, pin_dir / name)
        info = bpf.prog_info(fds[face.programs[0]])
    except BaseException:
        pins.remove(pin_dir, pins.pinned(pin_dir) - before)
        raise
    return {
        "ok": True,
        "abi": layout.abi_version(),
        "digest": source.digest(text, sizes),
        "prog_id": info.id,
        "tag": info.tag,
        "map_ids": sorted(info.map_ids),
        "seconds": round(time.monotonic() - started, 3),
    }


def load_call(pin_dir: Path, sizes: source.Sizes, count: int) -> dict[str, Any]:
    """The programs for calls, beside a `police` that is pinned there. Raises as load()."""
    before = pins.pinned(pin_dir)
    values.make_room(pin_dir, count)
    try:
        return load(pin_dir, sizes, source.CALL_MAIN, source.CALL)
    except BaseException:
        pins.remove(pin_dir, pins.pinned(pin_dir) - before)
        raise


def _end_with(parent: int) -> None:
    """Be killed when the parent dies: what it began nobody waits for, and the next daemon builds anew."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before
        os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: list[str] | None = None) -> int:
    """Run the loader; the exit status is the error's, 0 if all went well."""
    parser = argparse.ArgumentParser(
        prog="valkyrie-loader", description="compile, load and pin the XDP program"
    )
    parser.add_argument("--pin-dir", type=Path, required=True)
    parser.add_argument(
        "--sets", type=int, required=True, help="bucket sets, a power of two; eight buckets each"
    )
    parser.add_argument("--nodes", type=int, required=True, help="search tree nodes a generation")
    parser.add_argument("--cpus", type=int, default=source.possible_cpus(), help="possible CPUs of the host")
    parser.add_argument("--source", type=Path, default=source.MAIN, help="the program's main file")
    parser.add_argument("--values", type=int, help="build the programs for calls, for so many values")
    parser.add_argument("--parent", type=int, help="end when this process, which started it, does")
    given = parser.parse_args(arguments)
    if given.parent is not None:
        _end_with(given.parent)
    faulthandler.enable()  # LLVM dies of code its BPF back end cannot lower: say so
    sizes = source.Sizes(given.sets, given.nodes, given.cpus)
    try:
        if given.values is None:
            answer = load(given.pin_dir, sizes, given.source)
        else:
            answer = load_call(given.pin_dir, sizes, given.values)
    except ValkyrieError as error:
        failure = {"ok": False, "code": error.code, "what": error.what, "hint": error.hint}
        print(json.dumps({**failure, "log": getattr(error, "log", "")}))
        return error.exit_code
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
