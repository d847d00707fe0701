# SPDX-License-Identifier: Apache-2.0
"""What the end to end tests share."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.appliance import Appliance
from support.netns import veth_pair


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[Appliance]:
    bpffs = tmp_path / "bpf"
    bpffs.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(bpffs)], check=True)
    try:
        with veth_pair() as (inside, outside):
            made = Appliance(tmp_path, inside, outside)
            try:
                yield made
            finally:
                made.close()
    finally:
        subprocess.run(["umount", "--lazy", str(bpffs)], check=True)
