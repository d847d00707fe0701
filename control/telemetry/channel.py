# SPDX-License-Identifier: Apache-2.0
"""One way to a collector, HTTP or gRPC: a batch goes out within a time, or a sentence says why not.

For a thread of its own: a name that does not resolve blocks for as long as the system's resolver likes.
"""

from __future__ import annotations

import importlib.util
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias
from urllib.parse import unquote

from valkyrie.control.errors import InvalidInput, ValkyrieError
from valkyrie.control.telemetry.settings import OtlpSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

Signal = Literal["metrics", "traces"]
Payload: TypeAlias = "MetricsData | Sequence[ReadableSpan]"
MAX_HEADERS = 32
MOST_WAIT_S = 600.0  # of what a collector asks for


class ExportError(ValkyrieError):
    """A batch was not taken. `permanent`: sending it again cannot help. `wait_s`: what the collector asks
    for before the next one; None: it did not say.
    """

    def __init__(
        self, what: str, hint: str = "", *, permanent: bool = False, wait_s: float | None = None
    ) -> None:
        super().__init__(what, hint)
        self.permanent = permanent
        self.wait_s = wait_s


class Channel(Protocol):
    """For one thread."""

    def send(self, signal: Signal, payload: Payload, timeout_s: float) -> None:
        """Raises ExportError."""

    def close(self) -> None: ...


def parse_headers(text: str) -> tuple[tuple[str, str], ...]:
    """`name=value` pairs, comma or line by line, values percent-encoded where they must be (as in
    OTEL_EXPORTER_OTLP_HEADERS). Raises InvalidInput, which shows nothing of the text: it is a secret.
    """
    found = []
    for number, pair in enumerate(filter(None, map(str.strip, text.replace("\n", ",").split(","))), 1):
        name, equals, value = pair.partition("=")
        name, value = name.strip().lower(), unquote(value.strip())
        fit = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        if not equals or not fit or not value.isascii() or not value.isprintable():
            raise InvalidInput(
                f"header {number} of the credential is not name=value in printable ASCII",
                "as: authorization=Bearer%20abc; several with commas in between",
            )
        found.append((name, value))
    if len(found) > MAX_HEADERS:
        raise InvalidInput(f"the credential holds more than {MAX_HEADERS} headers", "a few are enough")
    return tuple(found)


def has_grpc() -> bool:
    return importlib.util.find_spec("grpc") is not None


def open_channel(settings: OtlpSettings, headers: Sequence[tuple[str, str]]) -> Channel:
    """Raises ExportError, for a file of authorities that cannot be read, or without the gRPC library."""
    if settings.ca is not None:
        _readable(settings.ca)
    if settings.protocol == "http":
        from valkyrie.control.telemetry.over_http import HttpChannel  # noqa: PLC0415 - dear to load

        return HttpChannel(settings.endpoint, headers, settings.ca)
    if not has_grpc():
        raise ExportError("gRPC is not installed", "pip install valkyrie[grpc], or use --protocol http")
    from valkyrie.control.telemetry.over_grpc import GrpcChannel  # noqa: PLC0415 - an extra

    return GrpcChannel(settings.endpoint, headers, settings.ca)


def check_answer(signal: Signal, body: bytes, endpoint: str) -> None:
    """Raises ExportError for what is not OTLP, or tells that a part was refused."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - only once something is exported
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2  # noqa: PLC0415
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415

    refused = 0
    try:
        if signal == "metrics":
            taken = metrics_service_pb2.ExportMetricsServiceResponse.FromString(body)
            refused = taken.partial_success.rejected_data_points
        else:
            spans = trace_service_pb2.ExportTraceServiceResponse.FromString(body)
            refused = spans.partial_success.rejected_spans
    except DecodeError:
        raise ExportError(
            f"{endpoint} answers what is not OTLP", "is that a collector, and the port right?", permanent=True
        ) from None
    if refused:
        raise ExportError(
            f"{endpoint} refused {refused} of the {signal}", "the collector's log says more", permanent=True
        )


def _readable(ca: Path) -> None:
    try:
        ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or str(error)
        raise ExportError(f"cannot use the authorities in {ca}: {why}", "it is a PEM file") from error
