# SPDX-License-Identifier: Apache-2.0
"""vm/fresh-root makes a root of this host's release, has a command in it, and leaves nothing."""

import platform
import signal
import subprocess
from pathlib import Path

import pytest

from harness.fresh import COMPONENTS
from harness.provision import CHECKOUT

RELEASE = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
END_S = 60.0
# What a fresh clone in a root of its own has, and that its first process is not the command.
COMMAND = """
set -e
git rev-parse HEAD
[ -z "$(git status --porcelain)" ] && [ ! -e .venv ] && [ $$ != 1 ] && [ ! -e /mnt/appliance ]
[ "$(stat -f -c %T /sys/fs/bpf)" = bpf_fs ] && [ ! -e /sys/fs/bpf/valkyrie ]
echo up
sleep 600 & wait
"""


@pytest.mark.skipif(RELEASE not in COMPONENTS, reason=f"it makes no root of {RELEASE}")
@pytest.mark.skipif(not (CHECKOUT / ".git").is_dir(), reason="this is not a clone")
def test_a_command_runs_in_a_fresh_clone_and_after_ctrl_c_nothing_is_left(tmp_path: Path) -> None:
    log = tmp_path / "log"
    roots = tmp_path / "roots"
    roots.mkdir()
    argv = [str(CHECKOUT / "vm" / "fresh-root"), "--log", str(log), "--folder", str(roots), RELEASE, COMMAND]
    head = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(CHECKOUT), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        while line := process.stdout.readline():
            said += line
            if line == "up\n":
                process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=END_S)[1]
    assert (process.returncode, said) == (130, head + "up\n"), errors
    assert "nothing is left" in errors
    assert log.read_text() == said
    assert list(roots.iterdir()) == []
    assert str(roots) not in Path("/proc/mounts").read_text()
    running = subprocess.run(["pgrep", "-f", "sleep 600 & wait"], capture_output=True, text=True, check=False)
    assert running.stdout == ""
