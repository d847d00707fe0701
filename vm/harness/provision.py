# SPDX-License-Identifier: Apache-2.0
"""The checkout into the appliance, and `./appliance install` there: nothing else, as a user would do it."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

from harness.errors import VmError
from harness.lab import Lab
from harness.recipe import READY_LINK

CHECKOUT = Path(__file__).resolve().parent.parent.parent
LEFT_OUT = {
    ".git",
    ".venv",
    ".vagrant",
    "__pycache__",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
}
INSTALL_S = 600.0


def checkout_files(checkout: Path) -> list[str]:
    """What belongs to the checkout, uncommitted files as well; without git, all but what tools leave."""
    listing = ["git", "-c", "safe.directory=*", "-C", str(checkout), "ls-files", "-z"]
    try:
        done = subprocess.run(
            [*listing, "--cached", "--others", "--exclude-standard"],
            capture_output=True,
            text=True,
            check=True,
        )
        return sorted({name for name in done.stdout.split("\0") if name and os.path.lexists(checkout / name)})
    except (OSError, subprocess.CalledProcessError):
        found = []
        for folder, below, names in os.walk(checkout):
            links = [name for name in below if (Path(folder) / name).is_symlink()]
            below[:] = [name for name in below if name not in LEFT_OUT and name not in links]
            found += [str((Path(folder) / name).relative_to(checkout)) for name in [*names, *links]]
        return sorted(found)


def archive(checkout: Path) -> bytes:
    """The checkout as a tar archive, everything root's."""
    whole = io.BytesIO()

    def rooted(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        return entry

    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name in checkout_files(checkout):
            tar.add(checkout / name, name, recursive=False, filter=rooted)
    return whole.getvalue()


def copy(lab: Lab) -> None:
    """Put the checkout into the appliance."""
    lab.appliance.unpack(archive(CHECKOUT), lab.source)


def hide_ready(lab: Lab) -> None:
    """Have it installed with all of its Python packages from wheels, and not with those of the image."""
    lab.appliance.told("sh", "-c", f"rm -f /usr/local/lib/python3.*/dist-packages/{READY_LINK}")


def install(lab: Lab) -> None:
    """Install it there."""
    done = lab.appliance.run("sh", "-c", f"cd {lab.source} && ./appliance install", timeout=INSTALL_S)
    if done.returncode != 0:
        raise VmError(
            "./appliance install fails in the guest",
            "\n  ".join((done.stdout + done.stderr).splitlines()[-25:]),
            "The guest's journal is in the results.",
        )
