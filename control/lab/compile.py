# SPDX-License-Identifier: Apache-2.0
"""Compile a BPF file of the lab in a process of its own, and receive what it loaded.

    python -m valkyrie.control.lab.compile FILE SOCKET-FD '{"functions": [..], "maps": [..], "flags": [..]}'

LLVM's memory goes with that process; the file descriptors come over a Unix socket, so that
nothing is pinned anywhere and everything goes when the receiver does.
"""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from valkyrie.control.dataplane import headers
from valkyrie.control.dataplane.loader import import_bcc
from valkyrie.control.errors import DataplaneError

MAX_DESCRIPTORS = 64


@dataclass(frozen=True)
class Loaded:
    """File descriptors of XDP programs and maps, by name; a context manager that closes them."""

    programs: dict[str, int]
    maps: dict[str, int]

    def __enter__(self) -> "Loaded":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (*self.programs.values(), *self.maps.values()):
            os.close(fd)


def compiled(
    path: Path, functions: list[str], maps: list[str] | None = None, flags: list[str] | None = None
) -> Loaded:
    """Compile `path` and load its `functions` as XDP programs.

    Raises DataplaneError with what the compiler or verifier said.
    """
    maps = maps or []
    wanted = json.dumps({"functions": functions, "maps": maps, "flags": flags or []})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        argv = [sys.executable, "-m", __name__, str(path), str(theirs.fileno()), wanted]
        done = subprocess.run(argv, pass_fds=[theirs.fileno()], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DataplaneError(f"{path.name} does not build", done.stderr.strip())
        _, fds, _, _ = socket.recv_fds(ours, 1, MAX_DESCRIPTORS)
    return Loaded(
        dict(zip(functions, fds[: len(functions)], strict=True)),
        dict(zip(maps, fds[len(functions) :], strict=True)),
    )


def main(path: str, answer_fd: str, wanted: str) -> None:
    """The short-lived side: compile, load, hand over."""
    bcc = import_bcc()
    orders = json.loads(wanted)
    with headers.header_tree() as tree:
        os.environ["BCC_KERNEL_SOURCE"] = str(tree)
        module = bcc.BPF(text=Path(path).read_text(), cflags=["-Wall", "-Werror", *orders["flags"]])
    fds = [module.load_func(name, bcc.BPF.XDP).fd for name in orders["functions"]]
    fds += [module[name].map_fd for name in orders["maps"]]
    with socket.socket(fileno=int(answer_fd)) as answer:
        socket.send_fds(answer, [b"."], fds)


if __name__ == "__main__":
    main(*sys.argv[1:])
