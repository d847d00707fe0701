# SPDX-License-Identifier: Apache-2.0
"""How notifications do in a few figures. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SHOWN = ("name", "kind", "state", "queued", "dropped")


def condensed(adapters: Sequence[Mapping[str, Any]], unheard: int, problems: Iterable[str]) -> dict[str, Any]:
    """`adapters` as in the long status; `unheard` messages had no adapter to go to. `dead` counts those
    that are kept and those forgotten.
    """
    rows = [
        {
            **{name: one[name] for name in SHOWN},
            "dead": one["dead"] + one["forgotten"],
            "last_error": one["last_error"] if one["state"] == "failing" else "",
        }
        for one in adapters
    ]
    return {
        "failing": sum(row["state"] == "failing" for row in rows),
        **{name: sum(row[name] for row in rows) for name in ("queued", "dropped", "dead")},
        "unheard": unheard,
        "problems": [problem for problem in problems if problem],
        "adapters": rows,
    }
