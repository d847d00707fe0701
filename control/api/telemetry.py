# SPDX-License-Identifier: Apache-2.0
"""The part of the API that is about metrics, traces and logs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from starlette.responses import Response

from valkyrie.control.api.models import Body
from valkyrie.control.api.route import Call, Route
from valkyrie.control.service.service import Service
from valkyrie.control.telemetry.scrape import CONTENT_TYPE
from valkyrie.control.telemetry.settings import MAX_URL


class TelemetryBody(Body):
    """What is given is set, the rest stays. Empty text takes a setting away."""

    enabled: bool | None = Field(None, description="send metrics to the collector")
    endpoint: str | None = Field(None, max_length=MAX_URL, description="as http://localhost:4318")
    protocol: Literal["http", "grpc"] | None = None
    headers_credential: str | None = Field(None, max_length=64, description="credential with the headers")
    interval_seconds: float | None = None
    timeout_seconds: float | None = None
    ca: str | None = Field(None, max_length=4096, description="PEM of the authorities to trust")
    traces: bool | None = Field(None, description="send traces of control operations too")
    prometheus_listen: str | None = Field(None, max_length=256, description="as 127.0.0.1:9464")
    log: Literal["debug", "info", "warning", "error"] | None = Field(
        None, description="level of the log until the daemon ends"
    )


async def telemetry(service: Service, call: Call) -> Any:
    return service.telemetry.status()


async def set_telemetry(service: Service, call: Call) -> Any:
    return await service.telemetry.change(call.actor, call.body.model_dump(exclude_none=True))


async def reset_telemetry(service: Service, call: Call) -> Any:
    return await service.telemetry.reset(call.actor)


async def metrics(service: Service, call: Call) -> Any:
    return Response(await service.telemetry.text(), headers={"content-type": CONTENT_TYPE})


TELEMETRY_ROUTES = (
    Route("GET", "/v1/telemetry", "What is sent where, and how that goes", telemetry),
    Route(
        "PUT", "/v1/telemetry", "Set what is sent and served, without a restart", set_telemetry,
        body=TelemetryBody, answer="how it stands",
    ),
    Route("DELETE", "/v1/telemetry", "Go back to what the settings say", reset_telemetry),
    Route("GET", "/metrics", "All metrics as Prometheus text", metrics),
)  # fmt: skip
