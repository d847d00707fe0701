# SPDX-License-Identifier: Apache-2.0
"""Making every bucket of the kernel's table full."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from valkyrie.control import abi
from valkyrie.control.dataplane import buckets
from valkyrie.control.dataplane.maps import Dataplane


def flush_buckets(pin_dir: Path, now_ns: int) -> int:
    """All but bans; how many there were."""
    with Dataplane(pin_dir) as plane:
        held = np.unique(plane.bucket_keys["key"]["uid"] & np.uint16(abi.UID_MASK))
        return buckets.reset(plane, set(held.tolist()) - {0, abi.UID_BAN}, now_ns)
