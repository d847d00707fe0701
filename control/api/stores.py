# SPDX-License-Identifier: Apache-2.0
"""The part of the API that is about stores and their callers."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from valkyrie.adapters.limit import MAX_TOKENS
from valkyrie.adapters.naming import MAX_KEY_BYTES
from valkyrie.control.api.models import Body
from valkyrie.control.api.route import Call, Route
from valkyrie.control.errors import InvalidInput
from valkyrie.control.service.service import Service


class ConsumeBody(Body):
    """Either `limit`, or `rate` and perhaps `burst`."""

    key: str = Field(min_length=1, max_length=MAX_KEY_BYTES, description="whose bucket")
    n: int = Field(1, ge=0, le=MAX_TOKENS, description="tokens; 0: look without taking")
    limit: str | None = Field(None, max_length=63, description="a limit by name")
    rate: str | None = Field(None, max_length=64, description="of a limit of the caller's own, as 10/s")
    burst: str | None = Field(None, max_length=64, description="with a rate; absent: one second's worth")


async def store_status(service: Service, call: Call) -> Any:
    return {**service.stores.status(), "sync": service.keeping.status()}


async def store_check(service: Service, call: Call) -> Any:
    return await service.stores.check()


async def store_consume(service: Service, call: Call) -> Any:
    body = call.body
    return await service.stores.consume(body.key, body.n, body.limit, body.rate, body.burst)


async def call_limits(service: Service, call: Call) -> Any:
    serial = call.query.get("serial")
    if serial is not None and not (serial.isascii() and serial.isdigit() and len(serial) < 19):
        raise InvalidInput(f"serial is no number: {serial[:40]!r}", "as an earlier answer had it", "serial")
    known = None if serial is None else int(serial)
    return await service.stores.call_limits(call.needed("name"), known)


STORE_ROUTES = (
    Route("GET", "/v1/store", "Which store is in use, and how each of the chain does", store_status),
    Route("GET", "/v1/store/check", "Try each store of the chain out, and say what to mend", store_check),
    Route(
        "POST", "/v1/store/consume", "Take tokens of a bucket as an application would", store_consume,
        body=ConsumeBody,
    ),
    Route(
        "GET", "/v1/call-limits", "A limit as callers of try_consume need it", call_limits,
        query={
            "name": "which one",
            "serial": "of an earlier answer: if nothing has changed since, the limit is left out",
        },
    ),
)  # fmt: skip
