# SPDX-License-Identifier: Apache-2.0
"""The small dimensions: for each value of a field its class, and for each class the bitmap of limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.enums import Dimension
from valkyrie.control.ruleset.bitmaps import Rows, bitmap_of, distinct
from valkyrie.control.words import Ranges

# Where the dimension's values begin in the table, and how many there are.
PLACE = {
    Dimension.PROTOCOL: (abi.FIELD_PROTOCOL, 256),
    Dimension.FRAGMENT: (abi.FIELD_FRAGMENT, 3),
    Dimension.DSCP: (abi.FIELD_DSCP, 64),
    Dimension.VERSION: (abi.FIELD_VERSION, 2),
    Dimension.TCP_FLAGS: (abi.FIELD_TCP_FLAGS, 257),
    Dimension.ICMP: (abi.FIELD_ICMP, 513),
    Dimension.VLAN: (abi.FIELD_VLAN, 4097),
    Dimension.INTERFACE: (abi.FIELD_INTERFACE, abi.MAX_NICS),
    Dimension.LENGTH: (abi.FIELD_LENGTH, 65536),
    Dimension.SPORT: (abi.FIELD_SPORT, 65538),
    Dimension.DPORT: (abi.FIELD_DPORT, 65538),
}


@dataclass(frozen=True)
class Field:
    """Class of each value, shape (values,), and bitmap of each class."""

    class_of: NDArray[np.int64]
    classes: Rows


def field(dimension: Dimension, allowed: Sequence[Ranges | None]) -> Field:
    """The classes of one dimension, from what the limit at each position allows (None: everything)."""
    size = PLACE[dimension][1]
    # A limit's bit flips where a range of it begins and behind its end; between flips nothing changes.
    flips: dict[int, int] = {0: 0}
    for position, spans in enumerate(allowed):
        for start, end in ((0, size - 1),) if spans is None else spans:
            for place in (start, end + 1):
                flips[place] = flips.get(place, 0) ^ 1 << position
    flips.pop(size, None)
    starts = sorted(flips)
    rows = np.array([bitmap_of(_bits(flips[start])) for start in starts], np.uint64)
    classes, which = distinct(np.bitwise_xor.accumulate(rows, axis=0))
    return Field(np.repeat(which, np.diff([*starts, size])), classes)


def _bits(whole: int) -> list[int]:
    return [position for position in range(whole.bit_length()) if whole >> position & 1]
