# SPDX-License-Identifier: Apache-2.0
"""The API's observations: when packets of some keys came, by which a rate can be found."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from pydantic import Field

from valkyrie.control.api.capture import LONGEST_S, told
from valkyrie.control.api.models import Body
from valkyrie.control.api.route import LARGE_BODY, Call, Route
from valkyrie.control.document import checked
from valkyrie.control.errors import InvalidInput
from valkyrie.control.limits import Limit
from valkyrie.control.service.limits import known
from valkyrie.control.service.service import Service

RATES = {"packets": "1/s", "ip": "1MB/s", "frame": "1MB/s"}
"""Some rate of each measure: an observation takes no tokens."""


class ObserveBody(Body):
    """What would match and whose buckets there would be; or a limit that is there."""

    limit: str | None = Field(None, max_length=64, description="as this limit; then without the next three")
    match: str = Field("", max_length=8 << 20, description="which packets; empty: all")
    key: str | None = Field(None, max_length=256, description="what would get its own bucket")
    measure: Literal["packets", "ip", "frame"] = "packets"
    seconds: float = Field(600, gt=0, le=LONGEST_S, description="so long")


async def observe(service: Service, call: Call) -> Any:
    body: ObserveBody = call.body
    if body.limit is not None:
        limit = known(service.core.world, body.limit)
    else:
        limit = await asyncio.to_thread(_imagined, body)  # 100,000 prefixes take a while
    one = await service.observations.begin(call.actor, limit, body.limit or "", body.seconds)
    return told(service.observations.told(one), lambda: service.observations.end(one))


def _imagined(body: ObserveBody) -> Limit:
    """Raises InvalidInput."""
    if body.key is None:
        raise InvalidInput("an observation needs a key, or a limit", "key: src, for example", "key")
    fields = {"name": "observer", "match": body.match, "key": body.key, "measure": body.measure}
    return checked(Limit, {**fields, "rate": RATES[body.measure]})


OBSERVE_ROUTES: tuple[Route, ...] = (
    Route(
        "POST", "/v1/observe", "Times of packets of some keys, by which a rate can be found", observe,
        body=ObserveBody, stream=True, limit=LARGE_BODY,
        answer="records as they come; the last object has `end`",
    ),
)  # fmt: skip
