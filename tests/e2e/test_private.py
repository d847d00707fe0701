# SPDX-License-Identifier: Apache-2.0
"""The lab's private place, and what is told where there can be none."""

import subprocess
import sys
from pathlib import Path

IN_A_CHROOT = """
import os, sys
from valkyrie.control.errors import Unavailable
from valkyrie.control.lab.private import private_place
os.chroot(sys.argv[1])
try:
    with private_place():
        pass
except Unavailable as error:
    print(error.what, error.hint)
"""


def test_a_chroot_that_is_no_mount_point_is_told_with_the_bind_mount(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CHROOT, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert "/ is no mount point" in done.stdout
    assert "mount --bind ROOT ROOT" in done.stdout
