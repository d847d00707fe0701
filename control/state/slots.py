# SPDX-License-Identifier: Apache-2.0
"""Which numbers a limit has in the kernel: a slot for its counters and a uid for its buckets.

A uid names buckets, so one whose buckets may still be in the table must not be given to another
limit; it stays retired until they were purged. Uids go round, so that even then the freshest is
the last to come again. A slot stays retired until its counters were zeroed, unless there is no other for a
limit that comes as one goes: that limit counts from 0 a moment after it is in force.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from valkyrie.control import abi
from valkyrie.control.errors import Conflict

SLOTS = abi.MAX_LIMITS
LAST_UID = abi.UID_CALL - 1


@dataclass(frozen=True)
class Slot:
    """`key` is the limit's key when the uid was given: with another key its buckets are others."""

    name: str
    key: str
    slot: int
    uid: int


@dataclass(frozen=True)
class Retired:
    """A uid to purge, and the counter slot to zero when no limit has it any more."""

    uid: int
    slot: int | None


@dataclass(frozen=True)
class Allotment:
    """Slots in force by limit name, what waits to be purged, and the uid given last."""

    slots: Mapping[str, Slot] = field(default_factory=dict)
    retired: tuple[Retired, ...] = ()
    last_uid: int = 0


def allot(old: Allotment, keys: Mapping[str, str]) -> Allotment:
    """The allotment for limits given as name -> key. Limits that stay keep their numbers.

    Raises Conflict when more than 256 slots would be in use.
    """
    slots: dict[str, Slot] = {}
    retired = list(old.retired)
    for name, slot in old.slots.items():
        if name not in keys:
            retired.append(Retired(slot.uid, slot.slot))
        elif keys[name] == slot.key:
            slots[name] = slot
        else:
            retired.append(Retired(slot.uid, None))
    taken_uids = {slot.uid for slot in slots.values()} | {entry.uid for entry in retired}
    kept = {name: slot.slot for name, slot in old.slots.items() if name in keys}
    used = set(kept.values())
    waiting = {entry.slot for entry in retired if entry.slot is not None}
    last = old.last_uid
    for name in sorted(keys.keys() - slots.keys()):
        number = kept[name] if name in kept else _free_slot(used, waiting)
        used.add(number)
        last = _next_uid(last, taken_uids)
        taken_uids.add(last)
        slots[name] = Slot(name, keys[name], number, last)
    return Allotment(slots, tuple(retired), last)


def settled(old: Allotment, done: Iterable[Retired]) -> Allotment:
    """The allotment after `done` were purged and zeroed."""
    gone = {entry.uid for entry in done}
    return Allotment(old.slots, tuple(entry for entry in old.retired if entry.uid not in gone), old.last_uid)


def _free_slot(used: Collection[int], waiting: Collection[int]) -> int:
    for taken in ({*used, *waiting}, used):
        for number in range(SLOTS):
            if number not in taken:
                return number
    raise Conflict(f"all {SLOTS} limits are in use", "delete a limit first")


def _next_uid(last: int, taken: Collection[int]) -> int:
    for step in range(1, LAST_UID + 1):
        uid = (last + step - 1) % LAST_UID + 1
        if uid not in taken:
            return uid
    raise Conflict("no bucket number is free", "wait a moment and repeat: deleted limits are being purged")
