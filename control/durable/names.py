# SPDX-License-Identifier: Apache-2.0
"""Many buckets' names at once, and back. One by one, adapters/naming.py would take seconds for a million."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.naming import BANS, CALLERS
from valkyrie.control import abi
from valkyrie.control.cost import MAX_TAU, UNITS_A_NS
from valkyrie.control.dataplane.keyname import BAN_KEY
from valkyrie.control.durable.changes import Keys
from valkyrie.control.key import ID, KeySpec
from valkyrie.control.service.world import World
from valkyrie.control.units import parse_duration

RAW_BYTES = 18  # destination port and address
DIGITS = 2 * RAW_BYTES

# A bucket to put into a table; `level` in time units short of full.
ENTRY: Final = np.dtype([("uid", "u2"), ("dport", "u2"), ("addr", "u1", 16), ("pair6", "?"), ("level", "u8")])
Entries = NDArray[Any]


def names(keys: Keys, groups: Mapping[int, str]) -> list[str | None]:
    """The name of each bucket (naming.name_of); None for a uid that is in no group."""
    raw = np.empty((len(keys), RAW_BYTES), np.uint8)
    raw[:, :2] = keys["dport"].astype(">u2").view(np.uint8).reshape(-1, 2)
    raw[:, 2:] = keys["addr"]
    text = raw.tobytes().hex()
    words = keys["uid"].tolist()
    named: list[str | None] = []
    for at, word in enumerate(words):
        group = groups.get(word & abi.UID_MASK)
        if group is None:
            named.append(None)
        else:
            pair = "p" if word & abi.UID_IPV6_PAIR else ""
            named.append(f"{group}:{text[at * DIGITS : (at + 1) * DIGITS]}{pair}")
    return named


def groups_of(world: World) -> dict[int, str]:
    """Groups by uid: limits by their names, and the two that are no limit's."""
    named = {slot.uid: name for name, slot in world.allotment.slots.items()}
    return named | {abi.UID_BAN: BANS, abi.UID_CALL: CALLERS}


@dataclass(frozen=True)
class Target:
    """Where buckets of a group belong in this table, and how far from full they may be at most."""

    uid: int
    spec: KeySpec
    deepest: int


def targets_of(world: World) -> dict[str, Target]:
    """By group. What a store says is capped, so that nobody waits longer than the limits in force let him."""
    found = {
        name: Target(slot.uid, world.limits[name].key_spec, world.deepest(name))
        for name, slot in world.allotment.slots.items()
        if name in world.limits
    }
    bans = [parse_duration(limit.ban_for) for limit in world.desired.limits if limit.ban_for]
    longest = min(MAX_TAU, max(bans) * UNITS_A_NS) if bans else MAX_TAU
    return found | {
        BANS: Target(abi.UID_BAN, BAN_KEY, longest),
        CALLERS: Target(abi.UID_CALL, ID, MAX_TAU),
    }


def entries_of(levels: Sequence[BucketLevel], targets: Mapping[str, Target]) -> Entries:
    """The buckets that belong here. Those of unknown groups, and names that are none, are left out."""
    uids: list[int] = []
    texts: list[str] = []
    found: list[int] = []
    for one in levels:
        group, _, text = one.name.rpartition(":")
        target = targets.get(group)
        if target is None or one.level <= 0:
            continue
        word = target.uid
        if len(text) == DIGITS + 1 and text[-1] == "p":
            text, word = text[:-1], word | abi.UID_IPV6_PAIR
        if len(text) != DIGITS:
            continue
        uids.append(word)
        texts.append(text)
        found.append(min(one.level, target.deepest))
    try:
        raw = bytes.fromhex("".join(texts))
    except ValueError:
        raw = b""
    if len(raw) != RAW_BYTES * len(texts):
        return _without_damaged(levels, targets)
    return _packed(uids, raw, found)


def _packed(words: Iterable[int], raw: bytes, levels: Iterable[int]) -> Entries:
    uids = np.fromiter(words, np.uint16)
    bytewise = np.frombuffer(raw, np.uint8).reshape(-1, RAW_BYTES)
    made = np.zeros(len(uids), ENTRY)
    made["uid"] = uids & np.uint16(abi.UID_MASK)
    made["pair6"] = (uids & np.uint16(abi.UID_IPV6_PAIR)) != 0
    made["dport"] = np.ascontiguousarray(bytewise[:, :2]).view(">u2").reshape(-1)
    made["addr"] = bytewise[:, 2:]
    made["level"] = np.fromiter(levels, np.uint64)
    return made


def _without_damaged(levels: Sequence[BucketLevel], targets: Mapping[str, Target]) -> Entries:
    """As entries_of, when one of the names holds what is no hexadecimal digit."""
    whole = [one for one in levels if _is_hexadecimal(one.name.rpartition(":")[2].removesuffix("p"))]
    return entries_of(whole, targets)


def _is_hexadecimal(text: str) -> bool:
    return bool(text) and all(digit in "0123456789abcdefABCDEF" for digit in text)
