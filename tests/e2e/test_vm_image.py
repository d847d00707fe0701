# SPDX-License-Identifier: Apache-2.0
"""An image of a virtual machine that cannot be made: said soon, and nothing of it stays."""

import os
import subprocess
import sys
import time
from pathlib import Path

from harness import child
from harness.recipe import RELEASES

VM = Path(child.__file__).resolve().parent.parent
SOON_S = 120.0
MAKE = """
import sys
from pathlib import Path
from harness import image
from harness.errors import VmError
from harness.recipe import Recipe
try:
    image.cached(Recipe(sys.argv[1], ()), print, Path(sys.argv[2]))
except VmError as error:
    raise SystemExit(str(error))
"""


def test_without_network_it_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", MAKE, RELEASES[0], str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(VM)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert time.monotonic() - began < SOON_S
    assert done.returncode == 1
    assert "installing Debian bookworm into a folder failed" in done.stderr
    assert "connect this host and run again" in done.stderr
    assert "Traceback" not in done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
