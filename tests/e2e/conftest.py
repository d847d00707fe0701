# SPDX-License-Identifier: Apache-2.0
"""What the end to end tests share."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.appliance import BUCKETS, Appliance
from support.netns import veth_pair
from valkyrie.control.dataplane import build
from valkyrie.control.dataplane.maps import Dataplane
from valkyrie.control.dataplane.source import possible_cpus
from valkyrie.control.service.kernel import sizes_of


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """A BPF file system of its own, whose pins vanish with it."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a program that is built and pinned in bpf/, and its build.json: compiled once."""
    folder = tmp_path_factory.mktemp("built")
    with mounted(folder / "bpf") as bpffs:
        build.ensure(bpffs / "valkyrie", sizes_of(BUCKETS, possible_cpus()), folder / "build.json")
        yield folder


@pytest.fixture
def appliance(tmp_path: Path, built: Path) -> Iterator[Appliance]:
    """Not started yet; its program is built, its table empty."""
    (tmp_path / "state").mkdir()
    shutil.copy(built / "build.json", tmp_path / "state")
    with Dataplane(built / "bpf" / "valkyrie") as plane:
        for table in (plane.buckets, plane.bucket_keys, plane.leases, plane.limit_stats, plane.table_stats):
            table[:] = 0
    with veth_pair() as (inside, outside):
        made = Appliance(tmp_path, built / "bpf", inside, outside)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def bare_appliance(tmp_path: Path) -> Iterator[Appliance]:
    """Not started yet, with nothing built: for tests that change the program or its file system."""
    with mounted(tmp_path / "bpf") as bpffs, veth_pair() as (inside, outside):
        made = Appliance(tmp_path, bpffs, inside, outside)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def other_appliance(tmp_path: Path) -> Iterator[Appliance]:
    """A second machine beside `appliance`, with everything of its own. Nothing is built."""
    folder = tmp_path / "other"
    folder.mkdir()
    with mounted(folder / "bpf") as bpffs, veth_pair() as (inside, outside):
        made = Appliance(folder, bpffs, inside, outside)
        try:
            yield made
        finally:
            made.close()
