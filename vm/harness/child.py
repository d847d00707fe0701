# SPDX-License-Identifier: Apache-2.0
"""Commands of this host: none outlives the harness, none runs without a bound."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import VmError

# The kernel ends the child when its parent dies, by whatever signal.
WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
# And with it everything that it started and mounted.
APART = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")

TOLD_LINES = 12


def tail(text: str, lines: int = TOLD_LINES) -> str:
    """The last lines that say something."""
    return "\n  ".join([line for line in text.splitlines() if line.strip()][-lines:])


def run(
    argv: Sequence[str], *, what: str, timeout: float, hint: str = "", env: Mapping[str, str] | None = None
) -> str:
    """What a command that must succeed prints; `what` names it in the error."""
    try:
        done = subprocess.run(
            [*WITH_PARENT, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
            env=env,
        )
    except FileNotFoundError as error:
        raise VmError(
            f"{what}: {error.filename} is not installed", hint="Run: sudo ./appliance vm-test"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise VmError(f"{what}: no end after {timeout:.0f} s", hint=hint) from error
    if done.returncode != 0:
        raise VmError(f"{what} failed (exit {done.returncode})", tail(done.stderr + done.stdout), hint)
    return done.stdout


def end(process: subprocess.Popen[str], patience: float, first: signal.Signals = signal.SIGTERM) -> None:
    """End a process: ask, wait, then kill."""
    if process.poll() is None:
        process.send_signal(first)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def read_tail(path: Path, size: int = 16384) -> str:
    """The end of a file that may not be there."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
