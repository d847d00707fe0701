# SPDX-License-Identifier: Apache-2.0
"""The documents `state` and `counters` in a store: JSON, compressed with zstd. Pure.

`state` is all that was decided: the policy (control/document.py), the numbers of its limits in the kernel,
and the NICs of the machine that wrote it. A document of an earlier version is read, what it lacks at its
default; one of a later version is refused, and then nothing is written over it either.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from valkyrie.adapters.errors import ConsistencyError
from valkyrie.adapters.settings import APPLIANCE
from valkyrie.control import abi
from valkyrie.control.document import from_document, to_document
from valkyrie.control.errors import InvalidInput
from valkyrie.control.key import format_key, parse_key
from valkyrie.control.limits import Desired
from valkyrie.control.service.world import World
from valkyrie.control.state.nics import NIC_SLOTS, Nic
from valkyrie.control.state.slots import LAST_UID, SLOTS, Allotment, Slot, allot

STATE, COUNTERS = "state", "counters"
VERSION = 1
MAX_BYTES = 256 << 20  # of a document when unpacked
MAX_SERIAL = 1 << 62
MAX_MACHINE = 64  # characters; identity.machine makes 16
# What reading fields of another kind raises; int() of an infinite number: OverflowError.
WRONG = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
COUNTED = tuple(name for name in abi.LIMIT_STATS.names or () if name != "reserved")


class LaterVersion(ConsistencyError):  # noqa: N818 as the errors of the stores
    """A later Valkyrie has written there."""


@dataclass(frozen=True)
class Kept:
    """What a `state` document says. `nics` are those of `machine`, without trials."""

    appliance: str
    serial: int
    desired: Desired
    allotment: Allotment
    machine: str
    nics: Mapping[str, Nic]


def pack_state(world: World, serial: int, appliance: str, machine: str) -> bytes:
    slots = world.allotment.slots
    return _packed(
        {
            "version": VERSION,
            "appliance": appliance,
            "serial": serial,
            "policy": to_document(world.desired),
            "slots": {
                name: {"slot": one.slot, "uid": one.uid, "key": one.key} for name, one in slots.items()
            },
            "last_uid": world.allotment.last_uid,
            "machine": machine,
            "nics": [
                {"name": nic.name, "slot": nic.slot, "mode": nic.mode, "protect": list(nic.protect)}
                for nic in world.nics.values()
                if nic.deadline is None
            ],
        }
    )


def read_state(content: bytes) -> Kept:
    """Raises ConsistencyError for what is no such document, or one of a later version."""
    fields = _read(content, STATE)
    try:
        desired = from_document(fields["policy"])
        return Kept(
            _appliance(fields["appliance"]),
            _serial(fields["serial"]),
            desired,
            _allotment(fields, desired),
            _machine(fields.get("machine", "")),
            {nic.name: nic for nic in _nics(fields.get("nics", []))},
        )
    except InvalidInput as error:
        raise _damaged(STATE, f"{error.what} ({error.where})") from error
    except WRONG as error:
        raise _damaged(STATE, repr(error)[:120]) from error


def _appliance(text: Any) -> str:
    if not isinstance(text, str) or not APPLIANCE.fullmatch(text):
        raise ValueError("the appliance's name")
    return text


def _machine(text: Any) -> str:
    if not isinstance(text, str) or len(text) > MAX_MACHINE or not text.isascii():
        raise ValueError("the machine")
    return text


def _serial(number: Any) -> int:
    """One that the state can count on from."""
    if not isinstance(number, int) or not 0 <= number < MAX_SERIAL:
        raise ValueError("the serial")
    return number


def _allotment(fields: Mapping[str, Any], desired: Desired) -> Allotment:
    """Numbers as they were, so that the buckets in a kernel that still has them stay their limits'; new
    ones where the document has none, or none that can be.
    """
    given = fields.get("slots", {})
    last = min(max(0, int(fields.get("last_uid", 0))), LAST_UID)
    slots: dict[str, Slot] = {}
    for limit in desired.limits:
        if limit.name in given:
            row = given[limit.name]
            key = format_key(parse_key(str(row["key"])))
            slots[limit.name] = Slot(limit.name, key, int(row["slot"]), int(row["uid"]))
    uids = {one.uid for one in slots.values()}
    numbers = {one.slot for one in slots.values()}
    fits = all(1 <= uid <= LAST_UID for uid in uids) and all(0 <= slot < SLOTS for slot in numbers)
    if not fits or len(uids) != len(slots) or len(numbers) != len(slots):
        slots = {}
    known = Allotment(slots, (), max([last, *uids]) if fits else 0)
    return allot(known, {limit.name: limit.key for limit in desired.limits})


def _nics(rows: Iterable[Mapping[str, Any]]) -> list[Nic]:
    found = [
        Nic(str(row["name"]), int(row["slot"]), str(row["mode"]), tuple(map(str, row["protect"])))
        for row in rows
    ]
    slots = {nic.slot for nic in found}
    if len(slots) != len(found) or not slots <= set(range(1, NIC_SLOTS)):
        raise ValueError("NIC slots")
    return found


def pack_counters(world: World, totals: NDArray[Any], appliance: str) -> bytes:
    """`totals`: abi.LIMIT_STATS by slot, summed over CPUs."""
    limits = {
        name: {field: int(totals[field][one.slot]) for field in COUNTED}
        for name, one in world.allotment.slots.items()
    }
    return _packed({"version": VERSION, "appliance": appliance, "limits": limits})


def read_counters(content: bytes, world: World) -> NDArray[Any]:
    """Totals by slot for the limits that there are. Raises ConsistencyError as read_state does."""
    fields = _read(content, COUNTERS)
    totals = np.zeros(abi.MAX_LIMITS, abi.LIMIT_STATS)
    try:
        for name, one in world.allotment.slots.items():
            for field, count in fields["limits"].get(name, {}).items():
                if field in COUNTED:
                    totals[field][one.slot] = min(max(0, int(count)), (1 << 63) - 1)
    except WRONG as error:
        raise _damaged(COUNTERS, repr(error)[:120]) from error
    return totals


def check_version(content: bytes | None) -> None:
    """Raises LaterVersion if a later Valkyrie wrote this `state`. A damaged one may be written over."""
    if content is None:
        return
    try:
        _read(content, STATE)
    except LaterVersion:
        raise
    except ConsistencyError:
        return


def _packed(document: Mapping[str, Any]) -> bytes:
    return zstandard.compress(json.dumps(document, separators=(",", ":")).encode())


def _read(content: bytes, name: str) -> dict[str, Any]:
    try:
        # A frame that says its size is unpacked whole, whatever `max_output_size` is.
        if zstandard.frame_content_size(content) > MAX_BYTES:
            raise _damaged(name, f"it would have more than {MAX_BYTES} bytes")
        text = zstandard.ZstdDecompressor().decompress(content, max_output_size=MAX_BYTES)
        fields = json.loads(text)
        version = fields["version"]
    except (zstandard.ZstdError, ValueError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise _damaged(name, "it cannot be unpacked") from error
    if not isinstance(version, int) or version < 1:
        raise _damaged(name, f"version {str(version)[:20]!r}")
    if version > VERSION:
        raise LaterVersion(
            f"a later Valkyrie wrote the store's document {name} (version {version}, known: {VERSION})",
            "nothing is written over it: install that version again, or set another store.name",
        )
    checked: dict[str, Any] = fields
    return checked


def _damaged(name: str, why: str) -> ConsistencyError:
    return ConsistencyError(
        f"the store's document {name} is damaged: {why}",
        "it is written anew from what is in force, which `valkyrie-ctl export` shows",
    )
