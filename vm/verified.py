#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How many instructions the verifier of this host's kernel looks at, for each program as BCC makes it here.

    sudo .venv/bin/python vm/verified.py
    sudo /opt/valkyrie/current/bin/python vm/verified.py    # of what is installed

Builds the programs in a BPF file system of its own, beside what runs, and prints one JSON object. The kernel
gives a program up at a million; it tells the numbers since Linux 5.16.
"""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, loader, source
from valkyrie.control.errors import ValkyrieError

SETS = (1 << 20) // abi.WAYS  # of the default table: sizes are constants in the code
VALUES = 1024
ARRAYS = ("continuation", "watchers", "call_continuation")  # what is called through these has no pin


@contextmanager
def pin_dir() -> Iterator[Path]:
    """A folder for pins on a BPF file system that goes with the block."""
    with tempfile.TemporaryDirectory(prefix="valkyrie-verified-") as folder:
        subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
        try:
            yield Path(folder) / "valkyrie"
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def build(pins: Path) -> None:
    """All programs, each file's in a process of its own as the daemon does it: LLVM ends with it."""
    words = [sys.executable, "-m", loader.__name__, "--pin-dir", str(pins), "--sets", str(SETS)]
    for more in ([], ["--values", str(VALUES)]):
        done = subprocess.run(
            [*words, "--nodes", str(abi.MAX_NODES), *more], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(f"verified: the programs do not load: {done.stdout}{done.stderr}")


def programs(pins: Path) -> Iterator[int]:
    """A descriptor of each program that was built."""
    for name in (*source.POLICE.programs, *source.CALL.programs):
        yield bpf.obj_get(pins / name)
    for name in ARRAYS:
        with bpf.opened(pins / name) as array:
            info = bpf.map_info(array)
            for key in bpf.map_keys(array, info.key_size, info.max_entries):
                if (found := bpf.map_lookup(array, key, info.value_size)) is not None:
                    yield bpf.by_id(bpf.PROG_BY_ID, int.from_bytes(found, sys.byteorder))


def verified(fd: int) -> tuple[str, int]:
    """A program's name, and how many instructions were looked at."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines)
    if "verified_insns" not in told:
        raise SystemExit("verified: this kernel does not tell it; Linux 5.16 does")
    return bpf.prog_info(fd).name, int(told["verified_insns"])


def compiler() -> dict[str, str]:
    """The versions of BCC and of the LLVM that it works with."""
    bcc = loader.import_bcc()
    mapped = re.search(r"libLLVM[-.]?(?:so\.)?([\d.]+\d)", Path("/proc/self/maps").read_text())
    return {"bcc": bcc.__version__, "llvm": mapped[1] if mapped else "?"}


def main() -> None:
    counts: dict[str, int] = {}
    with pin_dir() as pins:
        build(pins)
        for fd in programs(pins):
            counts.update([verified(fd)])
            os.close(fd)
    print(json.dumps({"kernel": platform.release(), **compiler(), "programs": counts}))  # noqa: T201 its result


if __name__ == "__main__":
    try:
        main()
    except (ValkyrieError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"verified: {error}") from error
