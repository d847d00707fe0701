# SPDX-License-Identifier: Apache-2.0
"""The API's captures: packets of people, so only for those who may change things."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from pydantic import Field
from starlette.responses import StreamingResponse

from valkyrie.control import abi
from valkyrie.control.api.models import Body
from valkyrie.control.api.route import Call, Route
from valkyrie.control.capture.filter import Filter
from valkyrie.control.service.service import Service

MOST_FRAMES = 1_000_000
LONGEST_S = 3600


class CaptureBody(Body):
    """Which packets, and how many."""

    limit: str | None = Field(None, max_length=64, description="of this limit alone")
    reason: str | None = Field(None, max_length=32, description="of this reason alone, as limit or bad_tcp")
    passed: bool = Field(default=False, description="packets that passed, not those that were dropped")
    src: str | None = Field(None, max_length=64, description="from this prefix alone")
    sample: int = Field(1, ge=1, le=1_000_000_000, description="one in so many, on average")
    snaplen: int = Field(abi.CAPTURE_BYTES, ge=14, le=abi.CAPTURE_BYTES, description="bytes of each frame")
    count: int = Field(1000, ge=1, le=MOST_FRAMES, description="frames")
    seconds: float = Field(60, gt=0, le=LONGEST_S, description="at most so long")


async def capture(service: Service, call: Call) -> Any:
    given = call.body.model_dump()
    count, seconds = given.pop("count"), given.pop("seconds")
    begun = await service.captures.begin(call.actor, Filter(**given), seconds)
    return told(service.captures.frames(begun, count), lambda: service.captures.end(begun))


def told(objects: AsyncIterator[dict[str, Any]], end: Callable[[], None]) -> StreamingResponse:
    """The objects as server-sent events; `end` is called once, also when the reader hangs up."""

    async def lines() -> AsyncGenerator[bytes]:
        try:
            async for one in objects:
                yield b"data: " + json.dumps(one, separators=(",", ":")).encode() + b"\n\n"
        finally:
            end()

    async def closed() -> AsyncIterator[bytes]:
        async with aclosing(lines()) as stream:
            async for line in stream:
                yield line

    return StreamingResponse(closed(), media_type="text/event-stream")


CAPTURE_ROUTES: tuple[Route, ...] = (
    Route(
        "POST", "/v1/capture", "Copies of packets, with the reason of each verdict", capture,
        body=CaptureBody, stream=True, answer="frames as they come, and figures; the last object has `end`",
    ),
)  # fmt: skip
