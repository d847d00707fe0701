# SPDX-License-Identifier: Apache-2.0
"""A table of another size or ABI takes over from the pinned one, with what its buckets hold.

The new program and maps are made aside, at <pins>_next, filled, and take the old ones' place by two
renames; the old lie at <pins>_old until `finish`, and enforce until each NIC has been given the new
program. A bucket's set is the low bits of its fingerprint, so a fingerprint finds its place in a
table of any size; nothing is hashed anew, and the secret goes along.
"""

import mmap
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, build, layout, pins, source, values
from valkyrie.control.dataplane.maps import Dataplane, initialise
from valkyrie.control.errors import Conflict, NotFound

Words = NDArray[np.uint64]

SETS_OF_ABI_1 = np.dtype([("fingerprint", np.uint64, abi.WAYS), ("tat", np.uint64, abi.WAYS)])
"""A bucket set of ABI 1: two arrays. The names of the buckets lie as they do now."""

RETIRED = 1 << 31
"""Beside the ABI in `control` of a table that another has taken over: no program speaks that."""


@dataclass(frozen=True)
class Debts:
    """Live buckets: fingerprints, TATs in time units, and abi.BUCKET_KEY names, all (n,)."""

    fingerprint: Words
    tat: Words
    name: NDArray[Any]


def aside(pin_dir: Path, what: str) -> Path:
    """Where the new (`next`) or the former (`old`) pins lie."""
    return pin_dir.with_name(f"{pin_dir.name}_{what}")


def needed(pin_dir: Path, sizes: source.Sizes) -> bool:
    """Whether what is pinned has another layout than a build of these sizes, or speaks another ABI.

    Maps of another layout that no packet ever met, since a first start was cut off, are removed.
    """
    recover(pin_dir)
    found = _abi(pin_dir)
    misfits = bool(layout.misfits(pin_dir, sizes))
    if misfits and not found:
        pins.remove(pin_dir)
        return False
    return misfits or found not in (0, layout.abi_version())


def _abi(pin_dir: Path) -> int:
    """The ABI of what is pinned; 0 if nothing is, or nothing that was ever made ready for packets."""
    return _secrets(pin_dir)[0] if "control" in pins.pinned(pin_dir) else 0


def unfinished(pin_dir: Path) -> bool:
    """Whether a former program's pins wait for `finish`."""
    return aside(pin_dir, "old").is_dir()


def recover(pin_dir: Path) -> None:
    """After a crash between the two renames: put the old pins back."""
    old = aside(pin_dir, "old")
    if not pin_dir.is_dir() and old.is_dir():
        old.rename(pin_dir)


def _values(path: Path) -> NDArray[np.uint8]:
    """A copy of an array map's bytes, (entries, bytes a value rounded up to 8), whatever its layout."""
    with bpf.opened(path) as fd:
        info = bpf.map_info(fd)
        stride = -(-info.value_size // 8) * 8
        with mmap.mmap(fd, stride * info.max_entries, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
            return np.frombuffer(mapped[:], np.uint8).reshape(info.max_entries, stride)


def _secrets(pin_dir: Path) -> tuple[int, tuple[int, int], int]:
    """ABI, hash secret and test magic of a table. These keep their place in every ABI."""
    control = _values(pin_dir / "control")[0]
    numbers = control[8:32].view(np.uint64)
    return int(control[:4].view(np.uint32)[0]) & ~RETIRED, (int(numbers[0]), int(numbers[1])), int(numbers[2])


def debts(pin_dir: Path, now_ns: int) -> Debts:
    """The buckets that are not full. An idle bucket is a full one: leaving it behind loses nothing.

    Raises Conflict if the buckets themselves have a layout that this ABI does not know.
    """
    speaks = _abi(pin_dir)
    sets, names = _values(pin_dir / "buckets"), _values(pin_dir / "bucket_keys")
    fits = (sets.shape[1], names.shape[1]) == (abi.BUCKET_SET.itemsize, abi.BUCKET_KEY_SET.itemsize)
    if not fits or speaks > abi.ABI_VERSION:
        raise Conflict(
            f"the pinned buckets have a layout that is not known here (ABI {speaks})",
            "remove the pins: the buckets start full",
        )
    flat = sets.reshape(-1)
    table = flat.view(SETS_OF_ABI_1) if speaks == 1 else flat.view(abi.BUCKET_SET)["bucket"]
    keys = names.reshape(-1).view(abi.BUCKET_KEY_SET)["key"]
    live = (table["fingerprint"] != 0) & (table["tat"] > np.uint64(now_ns << abi.TIME_SHIFT))
    return Debts(table["fingerprint"][live], table["tat"][live], keys[live])


def place(dp: Dataplane, found: Debts) -> int:
    """Write debts into a table that no packet uses yet; how many found no room.

    In a smaller table the WAYS deepest debts of a set stay.
    """
    sets = (found.fingerprint & np.uint64(len(dp.buckets) - 1)).astype(np.intp)
    order = np.lexsort((~found.tat, sets))
    ordered = sets[order]
    first = np.searchsorted(ordered, ordered)
    ways = np.arange(len(ordered)) - first
    fits = ways < abi.WAYS
    rows, columns, chosen = ordered[fits], ways[fits], order[fits]
    dp.buckets["tat"][rows, columns] = found.tat[chosen]
    dp.bucket_keys["key"][rows, columns] = found.name[chosen]
    dp.buckets["fingerprint"][rows, columns] = found.fingerprint[chosen]
    return int(len(order) - len(chosen))


def deepen(dp: Dataplane, found: Debts) -> None:
    """Raise the TATs of buckets that both tables hold to the later of the two.

    What a bucket new since the copy has spent, and what both programs charged between the copy and
    the attach, is forgiven: what passed in the milliseconds of the switch.
    """
    sets = (found.fingerprint & np.uint64(len(dp.buckets) - 1)).astype(np.intp)
    rows, columns = np.nonzero(dp.buckets["fingerprint"][sets] == found.fingerprint[:, None])
    now = dp.buckets["tat"][sets[rows], columns]
    later = found.tat[rows] > now
    dp.buckets["tat"][sets[rows[later]], columns[later]] = found.tat[rows[later]]


def begin(
    pin_dir: Path,
    sizes: source.Sizes,
    record_path: Path,
    publish: Callable[[Dataplane], None],
    now_ns: Callable[[], int],
    *,
    main: Path = source.MAIN,
) -> build.Build:
    """Build aside, carry the buckets over and take the old pins' place. Then attach, then finish().

    `publish` puts the ruleset in force in the new tables, `now_ns` is the time since boot. If
    anything raises, the old pins and program stay in force and nothing new is left.
    """
    fresh, old = aside(pin_dir, "next"), aside(pin_dir, "old")
    pins.remove(fresh)
    pins.remove(old)
    pins.prepare(fresh)
    try:
        answer = build.run_loader(fresh, sizes, main)
        with Dataplane(fresh) as dp:
            _, secret, magic = _secrets(pin_dir)
            initialise(dp, secret, magic)
            publish(dp)
            place(dp, debts(pin_dir, now_ns()))
        values.carry_over(pin_dir, fresh)
    except BaseException:
        pins.remove(fresh)
        raise
    pin_dir.rename(old)
    fresh.rename(pin_dir)
    made = build.Build(
        answer["abi"], answer["digest"], answer["tag"], answer["prog_id"], tuple(answer["map_ids"])
    )
    build.write_record(record_path, made)
    return made


def _retire(old: Path) -> None:
    """Let no process take tokens from the former table any more: `call` says so, and they open the new.

    The ABI stays legible: the table's layout is known by it.
    """
    if "control" in pins.pinned(old):
        mark = (_abi(old) | RETIRED).to_bytes(4, sys.byteorder)
        with bpf.opened(old / "control") as fd:
            size = bpf.map_info(fd).value_size
            held = bpf.map_lookup(fd, bytes(4), size) or bytes(size)
            bpf.map_update(fd, bytes(4), mark + held[4:])
        bpf.membarrier()


def finish(pin_dir: Path, now_ns: int) -> None:
    """Once every NIC has the new program: bring over what the old one charged since, and unpin it."""
    old = aside(pin_dir, "old")
    if not old.is_dir():
        return
    _retire(old)
    try:
        last = debts(old, now_ns)
    except NotFound:  # half removed by a finish that was cut off
        last = None
    if last is not None:
        with Dataplane(pin_dir) as dp:
            deepen(dp, last)
    pins.remove(old)
