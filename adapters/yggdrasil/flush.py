# SPDX-License-Identifier: Apache-2.0
"""Making every bucket of the kernel's table full."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from valkyrie.control import abi
from valkyrie.control.dataplane import buckets
from valkyrie.control.dataplane.maps import Dataplane


def flush_buckets(pin_dir: Path, now_ns: int) -> int:
    """All but bans; how many were not full."""
    with Dataplane(pin_dir) as plane:
        uids = plane.bucket_keys["key"]["uid"] & np.uint16(abi.UID_MASK)
        short = (plane.buckets["fingerprint"] != 0) & (
            plane.buckets["tat"] > np.uint64(now_ns << abi.TIME_SHIFT)
        )
        short &= uids != abi.UID_BAN
        buckets.reset(plane, set(np.unique(uids[short]).tolist()), now_ns)
        return int(np.count_nonzero(short))
