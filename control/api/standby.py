# SPDX-License-Identifier: Apache-2.0
"""The part of the API that is about standbys."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from valkyrie.control.api.models import Body
from valkyrie.control.api.route import Call, Route
from valkyrie.control.errors import Conflict
from valkyrie.control.service import standby as commands
from valkyrie.control.service.service import Service
from valkyrie.control.standby import Standby
from valkyrie.control.units import parse_duration


class FollowBody(Body):
    name: str = Field(min_length=1, max_length=63, description="the other appliance's name in the stores")
    after: str | None = Field(
        "10s", max_length=64, description="of silence it is taken over, from 5s to 1h; null: when told to"
    )
    wait: bool = Field(False, description="also when nothing is kept under that name yet")


class TakeOverBody(Body):
    force: bool = Field(False, description="also while the other appliance is alive")


def standby_of(service: Service) -> Standby:
    """Raises Conflict when nothing is kept in a store."""
    if service.standby is None:
        raise Conflict("a standby follows another appliance by the sync, which is off", "set sync.enabled")
    return service.standby


async def status(service: Service, call: Call) -> Any:
    return standby_of(service).told()


async def follow(service: Service, call: Call) -> Any:
    after_s = None if call.body.after is None else parse_duration(call.body.after) / 1e9
    return await commands.follow(
        standby_of(service), call.actor, call.body.name, after_s, wait=call.body.wait
    )


async def take_over(service: Service, call: Call) -> Any:
    return await commands.take_over(standby_of(service), call.actor, force=call.body.force)


async def end(service: Service, call: Call) -> Any:
    return await commands.end(standby_of(service), call.actor)


STANDBY_ROUTES = (
    Route("GET", "/v1/standby", "Whom this appliance follows, and how that one does", status),
    Route(
        "POST", "/v1/standby/follow", "Follow another appliance, and take over when it is silent", follow,
        body=FollowBody,
    ),
    Route(
        "POST", "/v1/standby/take-over", "Take the place of the appliance that is followed", take_over,
        body=TakeOverBody,
    ),
    Route("POST", "/v1/standby/end", "Be no standby any more; the limits stay as they are", end),
)  # fmt: skip
