# SPDX-License-Identifier: Apache-2.0
"""One way to a collector, HTTP or gRPC: a message goes out within a time, or a sentence says why not.

For a thread of its own: a name that does not resolve blocks for as long as the system's resolver likes.
"""

from __future__ import annotations

import gzip
import http.client
import importlib.util
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

from valkyrie.control.errors import InvalidInput, ValkyrieError
from valkyrie.control.telemetry.settings import OtlpSettings

if TYPE_CHECKING:
    import grpc

Signal = Literal["metrics", "traces"]
MAX_ANSWER = 64 * 1024
MOST_WAIT_S = 600.0  # of what a Retry-After asks for
MAX_HEADERS = 32
SERVICES: Mapping[Signal, str] = {
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
}
TRY_AGAIN = (408, 429, 500, 502, 503, 504)


class ExportError(ValkyrieError):
    """A message was not taken. `permanent`: sending it again cannot help. `wait_s`: what the collector asks
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

    def send(self, signal: Signal, message: bytes, timeout_s: float) -> None:
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
    if settings.protocol == "http":
        return HttpChannel(settings.endpoint, headers, settings.ca)
    if not has_grpc():
        raise ExportError("gRPC is not installed", "pip install valkyrie[grpc], or use --protocol http")
    return GrpcChannel(settings.endpoint, headers, settings.ca)


class HttpChannel:
    """OTLP/HTTP with protobuf bodies, gzipped; a connection each, since there is one in ten seconds."""

    def __init__(self, endpoint: str, headers: Sequence[tuple[str, str]], ca: Path | None) -> None:
        self._endpoint = endpoint
        self._url = urlsplit(endpoint)
        self._headers = {
            **dict(headers), "content-type": "application/x-protobuf", "content-encoding": "gzip",
            "user-agent": "valkyried",
        }  # fmt: skip
        self._context = _context(ca) if self._url.scheme == "https" else None

    def send(self, signal: Signal, message: bytes, timeout_s: float) -> None:
        connection, late = self._connection(timeout_s), threading.Event()
        # The library bounds each read alone: a collector that trickles would hold us for ever.
        deadline = threading.Timer(timeout_s, _cut, (connection, late))
        deadline.daemon = True
        deadline.start()
        try:
            path = f"{self._url.path}/v1/{signal}"
            connection.request("POST", path, gzip.compress(message, 1), self._headers)
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER)
            if late.is_set():  # the end was ours
                raise TimeoutError  # noqa: TRY301 - told as the library's own timeouts are
        except TimeoutError as error:
            raise ExportError(f"{self._endpoint} did not answer within {timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            if late.is_set():
                raise ExportError(f"{self._endpoint} did not answer within {timeout_s:g} s") from error
            raise ExportError(f"{self._endpoint}: {_why(error)}") from error
        finally:
            deadline.cancel()
            connection.close()
        self._judge(signal, answer, body)

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        host = self._url.hostname or ""
        if self._context is None:
            return http.client.HTTPConnection(host, self._url.port or 80, timeout=timeout_s)
        return http.client.HTTPSConnection(
            host, self._url.port or 443, timeout=timeout_s, context=self._context
        )

    def _judge(self, signal: Signal, answer: http.client.HTTPResponse, body: bytes) -> None:
        status = answer.status
        if status == 200:
            kind = answer.getheader("content-type", "")
            if "protobuf" in kind or (body and "json" not in kind):
                check_answer(signal, body, self._endpoint)
            return
        if 200 < status < 300:
            return
        hint = {401: "set the credential of headers_credential anew", 404: "is the endpoint a base URL?"}
        raise ExportError(
            f"{self._endpoint} answers HTTP {status}",
            hint.get(status, "the collector's log says more"),
            permanent=status not in TRY_AGAIN,
            wait_s=_seconds(answer.getheader("retry-after")) if status in (429, 503) else None,
        )

    def close(self) -> None:
        """Nothing is kept open."""


class GrpcChannel:
    """OTLP/gRPC; the library keeps one connection and makes it again."""

    def __init__(self, endpoint: str, headers: Sequence[tuple[str, str]], ca: Path | None) -> None:
        import grpc  # noqa: PLC0415 - an extra, and dear

        url = urlsplit(endpoint)
        secure = url.scheme == "https"
        target = f"{url.netloc}" if url.port else f"{url.netloc}:{443 if secure else 4317}"
        self._endpoint = endpoint
        self._headers = tuple(headers)
        if secure:
            roots = _read(ca) if ca is not None else None
            self._channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots))
        else:
            self._channel = grpc.insecure_channel(target)
        self._failure: type[grpc.RpcError] = grpc.RpcError

    def send(self, signal: Signal, message: bytes, timeout_s: float) -> None:
        call = self._channel.unary_unary(SERVICES[signal], _as_it_is, _as_it_is)
        try:
            body = call(message, timeout=timeout_s, metadata=self._headers)
        except self._failure as error:
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
        return ExportError(f"{self._endpoint} answers gRPC {code}", hint, permanent=code not in again)

    def close(self) -> None:
        self._channel.close()


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


def _as_it_is(message: bytes) -> bytes:
    return message


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ExportError(f"cannot use the authorities in {ca}: {_why(error)}", "it is a PEM file") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ExportError(f"cannot read {path}: {error.strerror}", "it is a PEM file") from error


def _why(error: Exception) -> str:
    """In words; of broken HTTP the kind alone, since its text quotes what came."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f"does not speak HTTP ({type(error).__name__})"


def _seconds(retry_after: str | None) -> float | None:
    """Only the form in seconds: a date would need its clock to be right."""
    if retry_after is None or not (retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 9):
        return None
    return min(float(retry_after), MOST_WAIT_S)


def _cut(connection: http.client.HTTPConnection, late: threading.Event) -> None:
    late.set()
    if connection.sock is not None:
        try:
            connection.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
