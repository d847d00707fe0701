# SPDX-License-Identifier: Apache-2.0
"""Limits as the packet program reads them: struct limit of bpf/abi.h."""

from __future__ import annotations

from typing import Any

from valkyrie.control.enums import KeyField
from valkyrie.control.key import KeySpec
from valkyrie.control.limits import ACTIONS, MEASURES, Limit
from valkyrie.control.ruleset.plans import overrides_by_source, plan_row
from valkyrie.control.units import parse_duration

_64_ONES = (1 << 64) - 1
OPAQUE = (_64_ONES, _64_ONES, 0, 0)  # a caller's key takes the source's place, all of it
IPV4_BITS_BEFORE = 96  # canonical IPv4 addresses are ::ffff:a.b.c.d


def limit_row(
    limit: Limit, *, slot: int, uid: int, cpus: int, override_roots: tuple[int, int]
) -> tuple[Any, ...]:
    """The fields of abi.LIMIT."""
    key, measure = limit.key_spec, MEASURES[limit.measure]
    return (
        plan_row(limit.cost, measure, key, cpus),
        OPAQUE if key.id else _masks(key.src4, key.dst4, IPV4_BITS_BEFORE),
        OPAQUE if key.id else _masks(key.src6, key.dst6, 0),
        0 if limit.ban_for is None else parse_duration(limit.ban_for),
        override_roots[0],
        uid,
        slot,
        int(ACTIONS[limit.action]),
        int(measure),
        key_fields(key),
        int(not overrides_by_source(key)),
        override_roots[1],
        0,
    )


def key_fields(key: KeySpec) -> int:
    """What besides the masked addresses distinguishes buckets, and which addresses there are."""
    parts = {
        KeyField.SPORT: key.sport,
        KeyField.DPORT: key.dport,
        KeyField.PROTOCOL: key.proto,
        KeyField.SRC: key.src4 is not None or key.id,
        KeyField.DST: key.dst4 is not None,
    }
    return sum(int(field) for field, there in parts.items() if there)


def _masks(src: int | None, dst: int | None, before: int) -> tuple[int, int, int, int]:
    """Source high, low, destination high, low."""
    return (*_mask(src, before), *_mask(dst, before))


def _mask(length: int | None, before: int) -> tuple[int, int]:
    """The high and low word with the first bits set; none at all for an address that is not in the key."""
    if length is None:
        return (0, 0)
    whole = ((1 << 128) - 1) ^ ((1 << (128 - before - length)) - 1)
    return (whole >> 64, whole & _64_ONES)
