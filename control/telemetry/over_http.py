# SPDX-License-Identifier: Apache-2.0
"""OTLP/HTTP by OpenTelemetry's exporters, over a session that keeps the time and says what went wrong.

The exporters return only that a delivery failed, repeat it themselves, take a redirect for success, and read
no answer. So the session judges each answer and raises; they repeat nothing that it raises.
"""

from __future__ import annotations

import http.client
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.trace.export import SpanExportResult
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from valkyrie.control.telemetry.channel import MOST_WAIT_S, ExportError, Payload, Signal, check_answer

MAX_ANSWER = 64 * 1024
TRY_AGAIN = (408, 429, 500, 502, 503, 504)
HINTS = {401: "set the credential of headers_credential anew", 404: "is the endpoint a base URL?"}


class HttpChannel:
    """Protobuf bodies, gzipped."""

    def __init__(self, endpoint: str, headers: Sequence[tuple[str, str]], ca: Path | None) -> None:
        self._endpoint = endpoint
        self._session = _Session(endpoint)
        given: dict[str, Any] = {
            "certificate_file": str(ca) if ca is not None else _authorities(),
            "headers": {**dict(headers), "user-agent": "valkyried"},
            "compression": Compression.Gzip,
            "session": self._session,
        }
        self._metrics = OTLPMetricExporter(f"{endpoint}/v1/metrics", **given)
        self._traces = OTLPSpanExporter(f"{endpoint}/v1/traces", **given)
        for exporter in (OTLPMetricExporter, OTLPSpanExporter):
            logging.getLogger(exporter.__module__).addFilter(_is_news)

    def send(self, signal: Signal, payload: Payload, timeout_s: float) -> None:
        self._session.begin(signal, timeout_s)
        if isinstance(payload, MetricsData):
            good = self._metrics.export(payload) is MetricExportResult.SUCCESS
        else:
            good = self._traces.export(payload) is SpanExportResult.SUCCESS
        if self._session.problem is not None:
            raise self._session.problem
        if not good:
            raise ExportError(f"the {signal} could not be encoded", "the log says more", permanent=True)

    def close(self) -> None:
        self._session.close()


class _Session(requests.Session):
    """For one thread. `problem`: why the delivery that was begun last failed."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        self.headers["connection"] = "close"  # there is one delivery in ten seconds
        self.trust_env = False  # neither proxies of the environment nor passwords of a .netrc
        self.problem: Exception | None = None
        self._endpoint = endpoint
        self._signal: Signal = "metrics"
        self._timeout_s = self._deadline = 0.0
        self._wire = _Wire()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(self._wire))

    def begin(self, signal: Signal, timeout_s: float) -> None:
        self.problem = None
        self._signal = signal
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s

    def request(self, method: str, url: str | bytes, *_: Any, **given: Any) -> requests.Response:
        try:
            answer, body = self._ask(method, url, given)
            self._judge(answer, body)
        except Exception as error:
            self.problem = error  # the exporter swallows it
            raise
        return answer

    def _ask(self, method: str, url: str | bytes, given: dict[str, Any]) -> tuple[requests.Response, bytes]:
        left, late = max(0.001, self._deadline - time.monotonic()), threading.Event()
        # The library bounds each read alone: a collector that trickles would hold us for ever.
        timer = threading.Timer(left, self._wire.cut, (late,))
        timer.daemon = True
        timer.start()
        try:
            with super().request(method, url, **{**given, "timeout": left, "stream": True}) as answer:
                body = answer.raw.read(MAX_ANSWER, decode_content=True)
            if late.is_set():  # the end was ours
                raise TimeoutError
        except (OSError, HTTPError) as error:
            timely = not late.is_set() and not any(isinstance(one, TimeoutError) for one in _causes(error))
            why = f": {_why(error)}" if timely else f" did not answer within {self._timeout_s:g} s"
            raise ExportError(f"{self._endpoint}{why}") from error
        finally:
            timer.cancel()
        return answer, body

    def _judge(self, answer: requests.Response, body: bytes) -> None:
        status = answer.status_code
        if status == 200:
            kind = answer.headers.get("content-type", "")
            if "protobuf" in kind or (body and "json" not in kind):
                check_answer(self._signal, body, self._endpoint)
            return
        if 200 < status < 300:
            return
        raise ExportError(
            f"{self._endpoint} answers HTTP {status}",
            HINTS.get(status, "the collector's log says more"),
            permanent=status not in TRY_AGAIN,
            wait_s=_seconds(answer.headers.get("retry-after")) if status in (429, 503) else None,
        )


class _Wire:
    """The connection made last; there is one at a time."""

    def __init__(self) -> None:
        self.connection: HTTPConnection | None = None

    def cut(self, late: threading.Event) -> None:
        """End it, from another thread."""
        late.set()
        made = None if self.connection is None else self.connection.sock
        if made is not None:
            try:
                made.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


class _Adapter(HTTPAdapter):
    """Connections that the wire knows of."""

    def __init__(self, wire: _Wire) -> None:
        super().__init__()

        class Plain(HTTPConnection):
            def connect(self) -> None:
                wire.connection = self
                super().connect()

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                wire.connection = self
                super().connect()

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}


def _authorities() -> str | None:
    """The system's; the library would take those that it brings along."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.capath


def _is_news(record: logging.LogRecord) -> bool:
    """Not what the courier tells, once, with its reason."""
    return not str(record.msg).startswith("Failed to export")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The libraries wrap an error three times; the last is the system's."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _why(error: Exception) -> str:
    """In words; of broken HTTP the kind alone, since its text quotes what came."""
    for one in reversed(list(_causes(error))):
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {one.verify_message}"
        if isinstance(one, OSError) and not isinstance(one, requests.RequestException):
            return one.strerror or str(one) or type(one).__name__
        if isinstance(one, http.client.HTTPException):
            return f"does not speak HTTP ({type(one).__name__})"
    return type(error).__name__


def _seconds(retry_after: str | None) -> float | None:
    """Only the form in seconds: a date would need its clock to be right."""
    if retry_after is None or not (retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 9):
        return None
    return min(float(retry_after), MOST_WAIT_S)
