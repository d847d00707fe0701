# SPDX-License-Identifier: Apache-2.0
"""What an observation has told so far, in bounded memory."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valkyrie.control.suggest.analysis import Seen, seen

RECORD = np.dtype([("time", "<u8"), ("fingerprint", "<u8"), ("tokens", "<u4"), ("thin", "<u4")])
MOST = 1_000_000  # records: 24 MB, and half a minute of analysis at worst
FEW_KEYS = 64
KEY_BITS = np.uint64(16)  # the kernel chooses keys by the bits above these


class Gathered:
    """Of every key that is kept, all packets since `anew`, or those that were chosen at random."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._parts: list[NDArray[Any]] = []
        self._count = 0
        self.mask = 0
        self.thin = 0
        self.enough = False  # so much of so few keys that more would tell nothing

    def take(self, told: dict[str, Any]) -> None:
        """One object of the stream."""
        if "records" in told:
            part = np.frombuffer(base64.b64decode(told["records"]), RECORD)
            self._parts.append(part)
            self._count += len(part)
            while self._count > self._most and not self.enough:
                self._fewer()
        elif "narrowed" in told:
            change = told["narrowed"]
            if change["anew"]:
                self._parts, self._count, self.thin = [], 0, change["thin"]
            self._narrow(self.mask | change["mask"])

    def _fewer(self) -> None:
        whole = np.concatenate(self._parts)
        if len(np.unique(whole["fingerprint"])) < 2 * FEW_KEYS:
            self.enough = True
        else:
            self._narrow(self.mask << 1 | 1)

    def _narrow(self, mask: int) -> None:
        """Keep keys whose fingerprints have none of these bits."""
        self.mask = mask
        whole = np.concatenate(self._parts) if self._parts else np.zeros(0, RECORD)
        kept = whole[(whole["fingerprint"] >> KEY_BITS & np.uint64(mask)) == 0]
        self._parts, self._count = [kept], len(kept)

    def seen(self) -> Seen:
        """Records that were under way while less was asked for are left out."""
        self._narrow(self.mask)
        whole = self._parts[0]
        whole = whole[whole["thin"] == self.thin]
        return seen(whole["time"], whole["fingerprint"], whole["tokens"], self.thin + 1, self.mask + 1)
