# SPDX-License-Identifier: Apache-2.0
"""A minimal root of this host's release, without Valkyrie or anything that it needs, to install into."""

import platform
import shutil
import subprocess
from pathlib import Path

from harness.root import Root, lend_settings, making

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PARTS = ("appliance", "pyproject.toml", "LICENSE", ".src", "bpf", "control", "adapters")


class CleanRoot:
    """The root at `path`, made by mmdebstrap, with the checkout in /src."""

    def __init__(self, path: Path) -> None:
        self.path = path
        subprocess.run(making(platform.freedesktop_os_release()["VERSION_CODENAME"], path), check=True)
        (path / "src").mkdir()
        for part in PARTS:
            source = CHECKOUT / part
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(source, path / "src" / part, symlinks=True, ignore=ignored)
            else:
                shutil.copy2(source, path / "src" / part)
        lend_settings(path)

    def run(self, script: str, *, network: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell script inside, in /src; without network it is in a network namespace of its own."""
        return Root(self.path).run(f"cd /src\n{script}", network=network)
