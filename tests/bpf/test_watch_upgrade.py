# SPDX-License-Identifier: Apache-2.0
"""A table from before there were captures and observations: nothing that it holds is forgotten."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.policy import limit
from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, build, migrate, pins, source
from valkyrie.control.dataplane.maps import Dataplane, initialise
from valkyrie.control.limits import Desired
from valkyrie.control.ruleset.compile import RulesetSettings, SlotUid, compile_ruleset

SIZES = source.Sizes(64, 256, source.possible_cpus())
NEW = ("watch", "watch_stats", "watchers", "captured", "observed")
HOUR = 3_600_000_000_000


@pytest.fixture
def pin_dir() -> Iterator[Path]:
    path = Path(f"/sys/fs/bpf/valkyrie-watchup-{os.getpid()}")
    yield path
    for place in (path, migrate.aside(path, "next"), migrate.aside(path, "old")):
        pins.remove(place)


def ruleset(serial: int) -> Any:
    return compile_ruleset(
        Desired.of([limit(rate="1/h", burst="5", key="src")]), slots={"one": SlotUid(0, 100)}, nic_slots={},
        cpus=SIZES.cpus, settings=RulesetSettings(max_nodes=256), serial=serial, mono_now_ns=0, wall_now_ns=0,
    )  # fmt: skip


def owe(dp: Dataplane) -> int:
    """One bucket that is not full; its TAT."""
    tat = time.monotonic_ns() + HOUR << abi.TIME_SHIFT
    dp.buckets["fingerprint"][5, 2], dp.buckets["tat"][5, 2] = 5 | 1 << 40, tat
    return tat


def test_maps_that_lack_are_made_and_those_there_are_kept(pin_dir: Path, tmp_path: Path) -> None:
    record = tmp_path / "build.json"
    build.ensure(pin_dir, SIZES, record)
    with Dataplane(pin_dir) as dp:
        tat = owe(dp)
    for name in NEW:
        (pin_dir / name).unlink()
    assert not migrate.needed(pin_dir, SIZES)
    assert build.ensure(pin_dir, SIZES, record).how == "upgraded"
    with Dataplane(pin_dir) as dp:
        assert int(dp.buckets["tat"][5, 2]) == tat
        assert not dp.watch["capture"]["id"].any()


def test_a_table_of_the_former_layout_is_migrated_with_its_buckets(pin_dir: Path, tmp_path: Path) -> None:
    record = tmp_path / "build.json"
    build.ensure(pin_dir, SIZES, record)
    with Dataplane(pin_dir) as dp:
        initialise(dp, (1, 2), 3)
        dp.publish(ruleset(1))
        tat = owe(dp)
    shrink(pin_dir, "control", 32)
    for name in NEW:
        (pin_dir / name).unlink()
    assert migrate.needed(pin_dir, SIZES)
    migrate.begin(pin_dir, SIZES, record, lambda dp: dp.publish(ruleset(2)), time.monotonic_ns)
    migrate.finish(pin_dir, time.monotonic_ns())
    with Dataplane(pin_dir) as dp:
        carried = dp.buckets["tat"][dp.buckets["fingerprint"] == 5 | 1 << 40]
        assert carried.tolist() == [tat]
        assert (dp.control["secret"][0].tolist(), int(dp.control["capturing"][0])) == ([1, 2], 0)
    assert set(NEW) <= pins.pinned(pin_dir)


def shrink(pin_dir: Path, name: str, size: int) -> None:
    """Put a map with the first bytes of each value in its place."""
    with bpf.opened(pin_dir / name) as fd:
        info = bpf.map_info(fd)
        held = bpf.map_lookup(fd, bytes(4), info.value_size)
    assert held is not None
    (pin_dir / name).unlink()
    made = bpf.map_create(bpf.MAP_TYPE_ARRAY, 4, size, entries=info.max_entries, flags=bpf.F_MMAPABLE)
    try:
        bpf.map_update(made, bytes(4), held[:size])
        bpf.obj_pin(made, pin_dir / name)
    finally:
        os.close(made)
