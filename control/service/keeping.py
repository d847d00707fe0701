# SPDX-License-Identifier: Apache-2.0
"""What the service needs of whoever keeps its state in a store. control/sync.py does; NotKept does not."""

from __future__ import annotations

from typing import Any, Protocol


class Keeping(Protocol):
    """None of these raises because of the store."""

    async def prepare(self) -> None:
        """Before anything is in force, and not for long: what a state that knows nothing can be told."""

    async def refill(self) -> None:
        """With the ruleset in force and before a NIC is attached, and not for long: fill a new table."""

    def status(self) -> dict[str, Any]:
        """For people; `state` is `off` when nothing is kept."""

    async def close(self) -> None:
        """The last changes, within seconds. Again: nothing."""


class NotKept:
    """Buckets live in the kernel alone, and end with it."""

    async def prepare(self) -> None:
        return

    async def refill(self) -> None:
        return

    def status(self) -> dict[str, Any]:
        return {"state": "off"}

    async def close(self) -> None:
        return
