# SPDX-License-Identifier: Apache-2.0
"""OTLP/gRPC: what OpenTelemetry's encoders make, sent by grpcio.

Not by OpenTelemetry's own gRPC exporter: why it failed only its log says, and only once in 20 s; that the
collector refused a part of a batch nobody is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics.export import MetricsData

from valkyrie.control.telemetry.channel import MOST_WAIT_S, ExportError, Payload, Signal, check_answer

SERVICES: Mapping[Signal, str] = {
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
}
DETAILS = "grpc-status-details-bin"
# By itself the library uses proxies of the environment, and leaves a collector that was away alone for up to
# two minutes after it is back.
OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class GrpcChannel:
    """OTLP/gRPC; the library keeps one connection and makes it again."""

    def __init__(self, endpoint: str, headers: Sequence[tuple[str, str]], ca: Path | None) -> None:
        url = urlsplit(endpoint)
        secure = url.scheme == "https"
        target = f"{url.netloc}" if url.port else f"{url.netloc}:{443 if secure else 4317}"
        self._endpoint = endpoint
        self._headers = tuple(headers)
        if secure:
            roots = None if ca is None else ca.read_bytes()
            self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), OPTIONS)
        else:
            self._channel = grpc.insecure_channel(target, OPTIONS)

    def send(self, signal: Signal, payload: Payload, timeout_s: float) -> None:
        message = _encoded(payload)
        call = self._channel.unary_unary(SERVICES[signal], _as_it_is, _as_it_is)
        try:
            body = call(message, timeout=timeout_s, metadata=self._headers)
        except grpc.RpcError as error:
            raise self._told(error, timeout_s) from None  # its text quotes the metadata sent
        check_answer(signal, body, self._endpoint)

    def _told(self, error: Any, timeout_s: float) -> ExportError:
        code = error.code().name
        if code == "DEADLINE_EXCEEDED":
            return ExportError(f"{self._endpoint} did not answer within {timeout_s:g} s")
        again = ("CANCELLED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS", "RESOURCE_EXHAUSTED")
        hints = {
            "UNAUTHENTICATED": "set the credential of headers_credential anew",
            "UNAVAILABLE": "is the collector's gRPC receiver there?",
        }
        hint = hints.get(code, "the collector's log says more")
        what = f"{self._endpoint} answers gRPC {code}"
        return ExportError(what, hint, permanent=code not in again, wait_s=_asked(error))

    def close(self) -> None:
        self._channel.close()


def _asked(error: Any) -> float | None:
    """Seconds of a RetryInfo, by which a collector asks to be left alone."""
    told = dict(error.trailing_metadata() or ()).get(DETAILS, b"")
    info = error_details_pb2.RetryInfo()
    try:
        for one in status_pb2.Status.FromString(told).details:
            if one.Is(info.DESCRIPTOR):
                one.Unpack(info)
                return min(max(0.0, float(info.retry_delay.ToNanoseconds()) / 1e9), MOST_WAIT_S)
    except DecodeError:
        return None
    return None


def _encoded(payload: Payload) -> bytes:
    made = encode_metrics(payload) if isinstance(payload, MetricsData) else encode_spans(payload)
    return bytes(made.SerializeToString())


def _as_it_is(message: bytes) -> bytes:
    return message
