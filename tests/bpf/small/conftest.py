# SPDX-License-Identifier: Apache-2.0
"""A small program over the real maps, built for a test or once for a file."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.small_program import BODY, SIZES, write
from valkyrie.control.dataplane import build, migrate, pins
from valkyrie.control.dataplane.maps import Dataplane


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return write(tmp_path, BODY)


@pytest.fixture
def pin_dir() -> Iterator[Path]:
    path = Path(f"/sys/fs/bpf/valkyrie-loader-{os.getpid()}")
    yield path
    for place in (path, migrate.aside(path, "next"), migrate.aside(path, "old")):
        pins.remove(place)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The small program, built once for the tests that only use its maps."""
    path = Path(f"/sys/fs/bpf/valkyrie-shared-{os.getpid()}")
    build.run_loader(path, SIZES, write(tmp_path_factory.mktemp("small"), BODY))
    yield path
    pins.remove(path)


@pytest.fixture
def dp(built: Path) -> Iterator[Dataplane]:
    """Its maps, as if just made."""
    with Dataplane(built) as opened:
        for table in (
            opened.control,
            opened.rulesets,
            opened.limit_stats,
            opened.reason_stats,
            opened.table_stats,
        ):
            table[:] = 0
        yield opened
