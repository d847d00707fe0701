# SPDX-License-Identifier: Apache-2.0
"""One operation of the API: how a request becomes a checked call, and its answer or error a response."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from valkyrie.control.api.peer import Access
from valkyrie.control.audit import Actor
from valkyrie.control.errors import InvalidInput, ValkyrieError
from valkyrie.control.service.service import Service

log = logging.getLogger(__name__)

SMALL_BODY = 64 * 1024
LARGE_BODY = 64 * 1024 * 1024  # 100,000 overrides are 8 MB
MAX_QUERY = 16
MOST_BRACKETS, MOST_COMMAS = 400_000, 4_000_000  # 64 MiB of `{},` would take a gigabyte
THREAD_ABOVE = 256 * 1024  # bytes of JSON that are worth a thread, so that the loop stays free

STATUS = {
    "invalid": 400,
    "not-found": 404,
    "conflict": 409,
    "permission": 403,
    "unavailable": 503,
    "foreign": 409,
    "store-connection": 503,
    "store-timeout": 503,
    "store-unavailable": 503,
    "store-call-refused": 503,
}


@dataclass(frozen=True)
class Call:
    """A request after all checks: `body` is an instance of the route's model, or None."""

    actor: Actor
    path: dict[str, str]
    query: dict[str, str]
    body: Any = None

    def number(self, name: str, default: int, most: int) -> int:
        """A query parameter from 1 to `most`. Raises InvalidInput."""
        text = self.query.get(name, str(default))
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
            raise InvalidInput(
                f"{name} is not a number from 1 to {most}: {text[:40]!r}", f"as {name}={default}", name
            )
        return int(text)

    def needed(self, name: str) -> str:
        """A query parameter that must be there. Raises InvalidInput."""
        value = self.query.get(name, "")
        if not value:
            raise InvalidInput(f"the query lacks {name}", f"add ?{name}=...", name)
        return value


Handler = Callable[[Service, Call], Awaitable[Any]]


@dataclass(frozen=True)
class Route:
    """An entry of the table from which both the server and its OpenAPI description are made."""

    method: str
    path: str
    summary: str
    handler: Handler
    body: type[BaseModel] | None = None
    query: dict[str, str] = field(default_factory=dict)  # name -> what it means
    answer: str = ""  # what comes back, in words
    limit: int = SMALL_BODY
    stream: bool = False
    looks: bool = False  # changes nothing, though it is no GET

    @property
    def writes(self) -> bool:
        return self.method != "GET" and not self.looks


async def serve(route: Route, service: Service, access: Access, request: Request) -> Response:
    """Check the caller, read and check the body, call the handler; every error becomes its answer."""
    try:
        peer = access.check(getattr(request.state, "peer", None), write=route.writes)
        # Of those who may only look, one large body at a time: they fill neither memory nor the queue.
        alone = route.looks and route.limit > SMALL_BODY and not access.may_write(peer)
        async with service.large_looks if alone else nullcontext():
            call = Call(
                peer.actor(), dict(request.path_params), _query(route, request), await _body(route, request)
            )
            answer = await route.handler(service, call)
        if isinstance(answer, Response):
            return answer
        return Response(await _encoded(answer), media_type="application/json")
    except ValkyrieError as error:
        return error_response(error)
    except ClientDisconnect:
        return Response(status_code=400)
    except Exception:
        log.exception("%s %s failed", route.method, route.path)
        return error_response(
            ValkyrieError("an error inside valkyried", "its log has the traceback: please report it")
        )


def error_response(error: ValkyrieError) -> Response:
    content = {
        "code": error.code,
        "what": error.what,
        "hint": error.hint,
        "where": getattr(error, "where", ""),
    }
    text = json.dumps({"error": content}).encode()
    return Response(text, status_code=STATUS.get(error.code, 500), media_type="application/json")


def _query(route: Route, request: Request) -> dict[str, str]:
    given = request.query_params.multi_items()
    for name, _ in given[:MAX_QUERY]:
        if name not in route.query:
            known = ", ".join(route.query) or "none"
            raise InvalidInput(f"unknown query parameter {name[:40]!r}", f"known here: {known}", name[:40])
    if len(given) > len({name for name, _ in given}):
        raise InvalidInput("a query parameter is given twice", "give each once")
    return dict(given)


async def _body(route: Route, request: Request) -> Any:
    """The body as the route's model; the limit holds for what is read, whatever the headers say."""
    raw = bytearray()
    most = route.limit if route.body else SMALL_BODY
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > most:
            raise InvalidInput(f"the body is larger than {most} bytes", "send less at once")
    if route.body is None:
        return None
    if raw.count(b"{") + raw.count(b"[") > MOST_BRACKETS or raw.count(b",") > MOST_COMMAS:
        raise InvalidInput(
            "the body holds too many values", "a policy has 100,000 prefixes and as many overrides"
        )
    if len(raw) > THREAD_ABOVE:
        return await asyncio.to_thread(parse_body, route.body, bytes(raw))
    return parse_body(route.body, bytes(raw))


def parse_body(model: type[BaseModel], raw: bytes) -> BaseModel:
    """The JSON text as an instance of the model. Raises InvalidInput naming the field."""
    try:
        return model.model_validate_json(raw or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ""
        for part in first["loc"]:
            where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else part
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InvalidInput):
            raise InvalidInput(cause.what, cause.hint, where) from error
        if first["type"] == "extra_forbidden":
            hint = "known here: " + ", ".join(model.model_fields) if len(first["loc"]) == 1 else "remove it"
            raise InvalidInput(f"unknown field {where}", hint, where) from error
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"{where or 'the body'}: {message}", "see /v1/openapi.json", where) from error


async def _encoded(answer: Any) -> bytes:
    size = max((len(value) for value in answer.values() if isinstance(value, list | dict)), default=0)
    if size > 1000:
        return await asyncio.to_thread(_encode, answer)
    return _encode(answer)


def _encode(answer: Any) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()
