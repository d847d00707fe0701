# SPDX-License-Identifier: Apache-2.0
"""The route table as a Starlette application."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from valkyrie.control.api.peer import Access
from valkyrie.control.api.route import Route, error_response, serve
from valkyrie.control.api.table import ROUTES
from valkyrie.control.errors import InvalidInput, NotFound
from valkyrie.control.service.service import Service
from valkyrie.control.telemetry.spans import failed

if TYPE_CHECKING:
    from opentelemetry.trace import Span


log = logging.getLogger(__name__)


def make_app(service: Service, access: Access) -> Starlette:
    app = Starlette(
        routes=[
            StarletteRoute(route.path, _endpoint(route, service, access), methods=[route.method])
            for route in ROUTES
        ],
        exception_handlers={HTTPException: _refused},
    )
    app.router.redirect_slashes = False  # a client that does not follow would take the 307 for success
    return app


def _endpoint(route: Route, service: Service, access: Access) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        began = time.perf_counter()
        with _trace(route, service, request) as root:
            response = await serve(route, service, access, request)
            if root is not None:
                told: dict[str, str | int] = {
                    "http.request.method": route.method,
                    "http.route": route.path,
                    "http.response.status_code": response.status_code,
                }
                root.set_attributes(told)
                if response.status_code >= 500:
                    failed(f"HTTP {response.status_code}")
        took = time.perf_counter() - began
        service.meters.calls.note(route.method, route.path, response.status_code, took)
        log.debug("%s %s: %d in %.1f ms", route.method, route.path, response.status_code, took * 1000)
        return response

    return endpoint


def _trace(route: Route, service: Service, request: Request) -> AbstractContextManager[Span | None]:
    """Of what changes something, and of what a caller traces; not of those who look once a second."""
    parent = request.headers.get("traceparent")
    if parent is None and route.method == "GET":
        return nullcontext()
    return service.telemetry.operation(f"{route.method} {route.path}", parent)


async def _refused(request: Request, error: Exception) -> Response:
    """No such path, or not by this method."""
    path = request.url.path[:200]
    if isinstance(error, HTTPException) and error.status_code == 405:
        response = error_response(InvalidInput(f"{request.method} is not for {path}", "see /v1/openapi.json"))
        response.status_code = 405
        return response
    return error_response(NotFound(f"the API has no {path}", "see /v1/openapi.json"))
