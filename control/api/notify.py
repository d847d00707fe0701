# SPDX-License-Identifier: Apache-2.0
"""The API's operations on notifications."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from valkyrie.control.api.models import Body
from valkyrie.control.api.route import Call, Route
from valkyrie.control.service.service import Service


class AdapterBody(Body):
    """An adapter that is added at run time, and the messages that it gets."""

    settings: dict[str, Any] = Field(description="`kind`, and what docs/notifications.md tells of that kind")
    severity: Literal["info", "warning", "error", "critical"] = Field("warning", description="the least")
    tags: dict[str, str] = Field(
        default_factory=dict, max_length=16, description="tags that a message must have; the value `*`: any"
    )


async def notify_status(service: Service, call: Call) -> Any:
    return service.notifications.status()


async def put_adapter(service: Service, call: Call) -> Any:
    body = call.body
    name = call.path["name"]
    return await service.notifications.add(call.actor, name, body.settings, body.severity, body.tags)


async def delete_adapter(service: Service, call: Call) -> Any:
    return await service.notifications.remove(call.actor, call.path["name"])


async def test_adapter(service: Service, call: Call) -> Any:
    return await service.notifications.test(call.actor, call.path["name"])


async def retry_adapter(service: Service, call: Call) -> Any:
    return await service.notifications.retry(call.actor, call.path["name"])


NOTIFY_ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/notify", "How notifications do: adapters, queues, dead messages", notify_status),
    Route(
        "PUT", "/v1/notify/{name}", "Add an adapter, or replace one that was added", put_adapter,
        body=AdapterBody, answer="the adapter as in the status",
    ),
    Route("DELETE", "/v1/notify/{name}", "Remove an adapter that was added", delete_adapter),
    Route(
        "POST", "/v1/notify/{name}/test", "Send a note through one adapter", test_adapter,
        answer="what the service answered; `ok` says whether it was taken",
    ),
    Route(
        "POST", "/v1/notify/{name}/retry", "Try what waits for an adapter and its dead messages now",
        retry_adapter,
    ),
)  # fmt: skip
