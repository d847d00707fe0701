# SPDX-License-Identifier: Apache-2.0
"""The daemon's memory does not end in a file: its process dumps no core, whatever the limits were."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from support.ctl import ROOT

ABORT = "import os; os.abort()"
FORBID = "from valkyrie.control.undumpable import forbid_core_dumps; forbid_core_dumps()"
# The settings cannot be read, so main returns: what it did before that holds in this process.
DAEMON = "from valkyrie.control import daemon; daemon.main(['--config', '/nonexistent.yaml'])"
ASK = "import ctypes, resource; print(ctypes.CDLL(None).prctl(3), *resource.getrlimit(resource.RLIMIT_CORE))"


def allow_cores() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, check=False, timeout=60, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / ".src")}, preexec_fn=allow_cores,
    )  # fmt: skip


def dumps(folder: Path, code: str) -> bool:
    """Whether a core lies in the folder; the process has ended by SIGABRT."""
    assert run(folder, code).returncode == -6
    return any(folder.iterdir())


def test_a_process_that_forbade_it_leaves_no_core(tmp_path: Path) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern != "core":
        pytest.skip(f"cores do not go to the process's folder here: {pattern}")
    with_core, without = tmp_path / "with", tmp_path / "without"
    with_core.mkdir()
    without.mkdir()
    if not dumps(with_core, ABORT):
        pytest.skip("no process dumps a core here")
    assert not dumps(without, f"{FORBID}; {ABORT}")


@pytest.mark.parametrize("code", [FORBID, DAEMON])
def test_it_is_forbidden_before_the_daemon_reads_its_settings(tmp_path: Path, code: str) -> None:
    ended = run(tmp_path, f"{code}; {ASK}")
    assert ended.stdout.split() == ["0", "0", "0"], ended.stderr
