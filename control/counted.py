# SPDX-License-Identifier: Apache-2.0
"""What is counted of a limit, as people are told it. Pure."""

from typing import Any

import numpy as np

COUNTERS = (
    *("matched", "passed", "dropped", "shadow_dropped"),
    *("matched_bytes", "passed_bytes", "dropped_bytes", "shadow_dropped_bytes"),
)


def counter(stats: Any, name: str) -> Any:
    """A counter of one or many abi.LIMIT_STATS. What passed is not counted in bytes for each packet, but what
    did not. Read while packets pass, the parts may be of two moments: at least 0 all the same.
    """
    if name != "passed_bytes":
        return stats[name]
    kept = stats["dropped_bytes"] + stats["undone_bytes"]
    return np.maximum(stats["matched_bytes"], kept) - kept
