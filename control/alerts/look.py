# SPDX-License-Identifier: Apache-2.0
"""The appliance as the rules see it, looked at by telemetry's one function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from valkyrie.control.alerts.sight import Sight, sight_of
from valkyrie.control.telemetry.snapshot import take

if TYPE_CHECKING:
    from valkyrie.control.service.service import Service

TALKERS = 100  # whoever has a hundredth of the drops is among them


async def look(service: Service, restarted: str) -> Sight:
    """In the event loop's thread."""
    snapshot = await take(service)
    return sight_of(snapshot, service.talkers.top(TALKERS), service.talkers.dropped(), restarted)
