# SPDX-License-Identifier: Apache-2.0
"""What may be asked of a NIC, and what is told of one whose name is not what it was. Pure."""

from __future__ import annotations

from typing import Any

from valkyrie.control.errors import InvalidInput
from valkyrie.control.units import parse_duration

MAX_NAME = 15  # IFNAMSIZ less its final zero
MAX_CONFIRM_S = 24 * 3600


def check_name(name: str) -> None:
    """Raises InvalidInput unless the kernel could have an interface of this name."""
    if (
        not name
        or len(name.encode()) > MAX_NAME
        or "/" in name
        or name in (".", "..")
        or not name.isprintable()
    ):
        raise InvalidInput(
            f"{name[:40]!r} is no name of a network interface", "`ip link` shows them", name[:40]
        )


def confirm_seconds(text: str | None) -> float | None:
    """How long a trial lasts. Raises InvalidInput."""
    if text is None:
        return None
    seconds = parse_duration(text) / 1e9
    if not 1 <= seconds <= MAX_CONFIRM_S:
        raise InvalidInput(f"a trial of {text} is out of range", "from 1s to 24h, as 60s", "confirm")
    return seconds


def called(holder: str) -> str:
    """Of a NIC that was renamed."""
    return f"called {holder} now, and policed there; `detach` it and attach {holder} to change the name here"


def stray(name: str, mode: str) -> dict[str, Any]:
    """A row for a NIC that was renamed and whose former name another has now."""
    return {
        "nic": name,
        "attached": True,
        "mode": mode,
        "wanted_mode": mode,
        "protect": [],
        "confirm_left_s": None,
        "problem": f"policed, though nobody attached {name}: attach it to keep that, detach it to end that",
    }
