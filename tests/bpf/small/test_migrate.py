# SPDX-License-Identifier: Apache-2.0
"""Another table size or ABI: buckets are carried over, and nothing is left half done."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.small_program import SIZES, ruleset
from valkyrie.control import abi
from valkyrie.control.dataplane import build, migrate, pins, source
from valkyrie.control.dataplane.maps import Dataplane, initialise
from valkyrie.control.errors import Conflict, DataplaneError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")


def test_another_size_is_a_conflict_that_names_the_maps(main: Path, pin_dir: Path) -> None:
    build.run_loader(pin_dir, SIZES, main)
    with pytest.raises(Conflict, match="buckets: 64 entries, 128 needed"):
        build.run_loader(pin_dir, source.Sizes(128, SIZES.nodes, SIZES.cpus), main)


@pytest.mark.parametrize("sets", [32, 256])
def test_a_migration_carries_live_buckets_to_another_size(
    sets: int, main: Path, pin_dir: Path, tmp_path: Path
) -> None:
    build.run_loader(pin_dir, SIZES, main)
    now_ns = time.monotonic_ns()
    later = (now_ns + 60 * 10**9) << abi.TIME_SHIFT
    wanted = {(9 << 32) + 70 * n: later + n for n in range(1, 100)}
    with Dataplane(pin_dir) as dp:
        initialise(dp, (11, 22), 33)
        names = np.zeros(len(wanted), abi.BUCKET_KEY)
        names["dport"] = np.arange(1, 100)
        found = migrate.Debts(
            np.array(list(wanted), np.uint64), np.array(list(wanted.values()), np.uint64), names
        )
        assert migrate.place(dp, found) == 0
        dp.buckets["fingerprint"][0, 7], dp.buckets["tat"][0, 7] = 640, 1
    sizes = source.Sizes(sets, SIZES.nodes, SIZES.cpus)
    assert migrate.needed(pin_dir, sizes)
    migrate.begin(
        pin_dir,
        sizes,
        tmp_path / "build.json",
        publish=lambda dp: dp.publish(ruleset(5)),
        now_ns=lambda: now_ns,
        main=main,
    )
    with Dataplane(migrate.aside(pin_dir, "old")) as dp:
        row, way = (axis[0] for axis in np.nonzero(dp.buckets["fingerprint"] == (9 << 32) + 70))
        dp.buckets["tat"][row, way] = later + 500
    migrate.finish(pin_dir, now_ns)
    wanted[(9 << 32) + 70] = later + 500
    with Dataplane(pin_dir) as dp:
        used = dp.buckets["fingerprint"] != 0
        held = dict(
            zip(dp.buckets["fingerprint"][used].tolist(), dp.buckets["tat"][used].tolist(), strict=True)
        )
        rows = np.nonzero(used)[0]
        assert ((dp.buckets["fingerprint"][used] & np.uint64(sets - 1)) == rows).all()
        assert dp.control["secret"][0].tolist() == [11, 22]
        assert (dp.serial, len(dp.buckets)) == (5, sets)
    assert held == wanted
    assert not migrate.needed(pin_dir, sizes)
    assert not migrate.aside(pin_dir, "old").exists()


def words_of_abi_1(dp: Dataplane) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The bucket table as ABI 1 laid it out: (sets, fingerprints or TATs, way)."""
    return dp.buckets.view(np.uint64).reshape(-1, 2, abi.WAYS)


def test_a_table_of_abi_1_is_migrated_and_no_bucket_is_forgotten(
    main: Path, pin_dir: Path, tmp_path: Path
) -> None:
    build.run_loader(pin_dir, SIZES, main)
    now_ns = time.monotonic_ns()
    later = (now_ns + 60 * 10**9) << abi.TIME_SHIFT
    held: dict[int, tuple[int, int]] = {}
    with Dataplane(pin_dir) as dp:
        initialise(dp, (11, 22), 33)
        assert not migrate.needed(pin_dir, SIZES)
        for number in range(SIZES.sets * abi.WAYS):
            place, way = number % SIZES.sets, number // SIZES.sets
            fingerprint = (0x9E3779B97F4A7C15 * (number + 1)) % 2**64 // SIZES.sets * SIZES.sets + place
            words_of_abi_1(dp)[place, :, way] = fingerprint, later + number
            dp.bucket_keys["key"]["dport"][place, way] = number
            held[fingerprint] = (later + number, number)
        dp.control["abi"] = 1
    assert migrate.needed(pin_dir, SIZES)
    migrate.begin(
        pin_dir,
        SIZES,
        tmp_path / "build.json",
        publish=lambda dp: dp.publish(ruleset(5)),
        now_ns=lambda: now_ns,
        main=main,
    )
    assert migrate.unfinished(pin_dir)
    with Dataplane(migrate.aside(pin_dir, "old")) as dp:  # the old program goes on until the last NIC
        fingerprint = int(words_of_abi_1(dp)[5, 0, 6])
        words_of_abi_1(dp)[5, 1, 6] += np.uint64(500)
        held[fingerprint] = (held[fingerprint][0] + 500, held[fingerprint][1])
    migrate.finish(pin_dir, now_ns)
    assert not migrate.unfinished(pin_dir)
    assert not migrate.needed(pin_dir, SIZES)
    with Dataplane(pin_dir) as dp:
        assert initialise(dp, (1, 2), 3) is False
        assert dp.control["secret"][0].tolist() == [11, 22]
        tats = zip(
            dp.buckets["tat"].ravel().tolist(), dp.bucket_keys["key"]["dport"].ravel().tolist(), strict=True
        )
        assert dict(zip(dp.buckets["fingerprint"].ravel().tolist(), tats, strict=True)) == held


def test_a_table_of_an_abi_to_come_is_refused_and_stays(main: Path, pin_dir: Path, tmp_path: Path) -> None:
    build.run_loader(pin_dir, SIZES, main)
    with Dataplane(pin_dir) as dp:
        initialise(dp, (11, 22), 33)
        dp.control["abi"] = abi.ABI_VERSION + 1
    before = pins.pinned(pin_dir)
    assert migrate.needed(pin_dir, SIZES)
    with pytest.raises(Conflict, match=rf"not known here \(ABI {abi.ABI_VERSION + 1}\)"):
        migrate.begin(
            pin_dir,
            SIZES,
            tmp_path / "build.json",
            publish=lambda dp: dp.publish(ruleset(5)),
            now_ns=time.monotonic_ns,
            main=main,
        )
    assert pins.pinned(pin_dir) == before
    assert not migrate.aside(pin_dir, "next").exists()


def test_maps_that_no_packet_met_are_no_hindrance_to_another_size(main: Path, pin_dir: Path) -> None:
    build.run_loader(pin_dir, SIZES, main)
    (pin_dir / pins.PROGRAM).unlink()  # the loader was killed before the end
    assert not migrate.needed(pin_dir, source.Sizes(256, SIZES.nodes, SIZES.cpus))
    assert pins.pinned(pin_dir) == set()


def test_a_failed_migration_leaves_everything_as_it_was(main: Path, pin_dir: Path, tmp_path: Path) -> None:
    build.run_loader(pin_dir, SIZES, main)

    def refuse(_: Dataplane) -> None:
        raise DataplaneError("no room")

    with pytest.raises(DataplaneError, match="no room"):
        migrate.begin(
            pin_dir,
            source.Sizes(256, 256, SIZES.cpus),
            tmp_path / "b",
            publish=refuse,
            now_ns=lambda: 0,
            main=main,
        )
    with Dataplane(pin_dir) as dp:
        assert len(dp.buckets) == SIZES.sets
    assert not migrate.aside(pin_dir, "next").exists()


def test_a_crash_between_the_renames_is_recovered(main: Path, pin_dir: Path) -> None:
    build.run_loader(pin_dir, SIZES, main)
    pin_dir.rename(migrate.aside(pin_dir, "old"))
    assert not migrate.needed(pin_dir, SIZES)
    assert pins.PROGRAM in pins.pinned(pin_dir)
