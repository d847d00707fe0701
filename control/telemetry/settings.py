# SPDX-License-Identifier: Apache-2.0
"""The `telemetry:` section of valkyrie.yaml. Run-time changes (runtime.py) stand above it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from valkyrie.adapters.hosts import on_this_host

MAX_URL = 1024


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        # Its message would quote the URL, and what may stand in it.
        usable = False
    if not usable or not url.isascii() or any(c.isspace() or not c.isprintable() for c in url):
        raise ValueError("is not a URL of a collector: as http://localhost:4318")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(
            "has a user, a password or a query in it: run `valkyrie-ctl creds set NAME` for the headers and "
            "write `headers_credential: NAME`"
        )
    return url.rstrip("/")


def _listen(text: str) -> str:
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    digits = port.isascii() and port.isdigit() and len(port) < 6
    if not colon or not bare or not digits or not 0 < int(port) < 1 << 16:
        raise ValueError("is not host:port, as 127.0.0.1:9464 or [::1]:9464")
    return text


class OtlpSettings(_Section):
    """What is sent to a collector, and where."""

    enabled: bool = Field(False, description="send metrics to the collector")
    endpoint: Annotated[str, Field(max_length=MAX_URL), AfterValidator(_endpoint)] = Field(
        "http://localhost:4318", description="http(s) base URL; /v1/metrics and /v1/traces are added for HTTP"
    )
    protocol: Literal["http", "grpc"] = Field("http", description="grpc needs valkyrie[grpc], and port 4317")
    headers_credential: str | None = Field(
        None, max_length=64, description="credential that holds headers, as `authorization=Bearer abc`"
    )
    interval_seconds: float = Field(10.0, ge=1, le=3600, description="between two batches of metrics")
    timeout_seconds: float = Field(5.0, ge=0.1, le=60, description="of one delivery, connecting included")
    ca: Path | None = Field(None, description="PEM of the authorities to trust; none: the system's")
    traces: bool = Field(False, description="send a trace of each control operation too")

    @field_validator("headers_credential")
    @classmethod
    def _not_in_the_clear(cls, name: str | None, info: ValidationInfo) -> str | None:
        parts = urlsplit(info.data.get("endpoint", ""))
        if name is not None and parts.scheme == "http" and not on_this_host(parts.hostname or ""):
            raise ValueError("the endpoint must begin with https://, for a secret goes there")
        return name


class PrometheusSettings(_Section):
    """Metrics for those who scrape by TCP. On the API's socket they are always there."""

    listen: Annotated[str, Field(max_length=256), AfterValidator(_listen)] | None = Field(
        None, description="host:port for GET /metrics by anybody who reaches it; none: no TCP"
    )


class TelemetrySettings(_Section):
    """Metrics and traces for others."""

    otlp: OtlpSettings = OtlpSettings()
    prometheus: PrometheusSettings = PrometheusSettings()
