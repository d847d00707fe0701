# SPDX-License-Identifier: Apache-2.0
"""Which packets a capture wants, and how that is said to the kernel. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.enums import Reason
from valkyrie.control.errors import InvalidInput
from valkyrie.control.prefix import MAPPED, parse_prefix

ALL_REASONS = (1 << abi.REASONS) - 1
RATE = 5000  # frames a second and CPU, at most: 100 Mbit/s of copies on ten CPUs


@dataclass(frozen=True)
class Filter:
    """`limit` and `reason` None: any. Without `passed`, packets that were dropped, and those that a
    shadow limit would have. One in `sample` is copied, its first `snaplen` bytes.
    """

    limit: str | None = None
    reason: str | None = None
    passed: bool = False
    src: str | None = None
    sample: int = 1
    snaplen: int = abi.CAPTURE_BYTES

    def sentence(self) -> str:
        """What is captured, in words."""
        words = ["packets that passed" if self.passed else "packets dropped, or that a shadow would drop"]
        words += [f"by limit {self.limit}"] if self.limit else []
        words += [f"for reason {self.reason}"] if self.reason else []
        words += [f"from {self.src}"] if self.src else []
        words += [f"one in {self.sample}"] if self.sample > 1 else []
        return f"{', '.join(words)}; at most {self.snaplen} bytes of each"


def reason_of(word: str) -> Reason:
    """Raises InvalidInput for a reason that there is not."""
    found = Reason.__members__.get(word.upper())
    if found is None:
        known = ", ".join(reason.name.lower() for reason in Reason)
        raise InvalidInput(f"there is no reason {word[:40]!r}", f"one of {known}", "reason")
    return found


def row(wanted: Filter, slot: int | None, identity: int, until_ns: int) -> NDArray[Any]:
    """An abi.CAPTURE. `slot`: of the limit's counters, None for any limit. Raises InvalidInput."""
    found = np.zeros((), abi.CAPTURE)
    network, mask = _source(wanted.src)
    found["id"], found["until"] = identity, until_ns
    found["src"], found["mask"] = network, mask
    found["verdicts"] = abi.CAPTURE_PASSED if wanted.passed else abi.CAPTURE_DROPPED | abi.CAPTURE_SHADOWED
    found["reasons"] = ALL_REASONS if wanted.reason is None else 1 << reason_of(wanted.reason)
    found["slot"] = abi.NO_SLOT if slot is None else slot
    found["sample"], found["rate"], found["snaplen"] = wanted.sample, RATE, wanted.snaplen
    return found


def _source(text: str | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """The canonical network and its mask, each high and low."""
    if text is None:
        return (0, 0), (0, 0)
    prefix = parse_prefix(text)
    packed, length = prefix.packed, prefix.length
    if prefix.version == 4:
        packed, length = MAPPED + packed, 96 + length
    mask = ((1 << 128) - 1) ^ ((1 << (128 - length)) - 1)
    return _halves(int.from_bytes(packed, "big")), _halves(mask)


def _halves(value: int) -> tuple[int, int]:
    return value >> 64, value & ((1 << 64) - 1)
