# SPDX-License-Identifier: Apache-2.0
"""A collector in this process, over HTTP or gRPC, that parses what it gets; and some that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

from support.certs import Certs


class Collector:
    """What came. `status` and `answer_headers` are what it answers with (HTTP); `garbage`: not OTLP; `asks`:
    to be left alone for so many seconds (gRPC).
    """

    def __init__(self) -> None:
        self.url = ""
        self.metrics: list[Any] = []
        self.spans: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.answer_headers: dict[str, str] = {}
        self.garbage = b""
        self.requests = 0
        self.asks = 0

    def took(self, signal: str, message: bytes, headers: dict[str, str]) -> None:
        self.headers.append(headers)
        if signal == "metrics":
            parsed = metrics.ExportMetricsServiceRequest.FromString(message)
            self.metrics.append(parsed)
        else:
            given = traces.ExportTraceServiceRequest.FromString(message)
            self.spans += [
                one
                for resource in given.resource_spans
                for scope in resource.scope_spans
                for one in scope.spans
            ]

    def series(self, name: str) -> dict[tuple[str, ...], Any]:
        """Of the newest batch: the points of a metric by the values of their attributes."""
        found: dict[tuple[str, ...], Any] = {}
        for resource in self.metrics[-1].resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == name:
                        points = getattr(metric, metric.WhichOneof("data")).data_points
                        found |= {
                            tuple(pair.value.string_value for pair in point.attributes): point
                            for point in points
                        }
        return found


@contextlib.contextmanager
def http_collector(
    host: str = "127.0.0.1",
    call: Callable[..., Any] = lambda function, *args: function(*args),
    certs: Certs | None = None,
) -> Iterator[Collector]:
    """`call` may make the server's socket in another network namespace; `certs`: TLS."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.requests += 1
            if collector.status == 200 and not collector.garbage:
                given = {name.lower(): value for name, value in self.headers.items()}
                collector.took(self.path.rpartition("/")[2], gzip.decompress(body), given)
            self.send_response(collector.status)
            for name, value in collector.answer_headers.items():
                self.send_header(name, value)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(collector.garbage)))
            self.end_headers()
            self.wfile.write(collector.garbage)

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    server = call(ThreadingHTTPServer, (host, 0), Handler)
    collector.url = f"{'https' if certs else 'http'}://{host}:{server.server_port}"
    if certs is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certs.server, certs.server_key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def busy_for(seconds: int) -> bytes:
    """What a gRPC service says of its error, with the wait that it asks for."""
    made = status_pb2.Status(code=8)
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromSeconds(seconds)
    made.details.add().Pack(info)
    return bytes(made.SerializeToString())


@contextlib.contextmanager
def grpc_collector(certs: Certs | None = None, port: int = 0) -> Iterator[Collector]:
    import grpc
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_service
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_service

    collector = Collector()

    class Metrics(metrics_service.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the service's name for it
            collector.requests += 1
            if collector.asks:
                context.set_trailing_metadata((("grpc-status-details-bin", busy_for(collector.asks)),))
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")
            if collector.status != 200:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
            collector.took("metrics", request.SerializeToString(), dict(context.invocation_metadata()))
            return metrics.ExportMetricsServiceResponse()

    class Traces(trace_service.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the service's name for it
            collector.took("traces", request.SerializeToString(), dict(context.invocation_metadata()))
            return traces.ExportTraceServiceResponse()

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        metrics_service.add_MetricsServiceServicer_to_server(Metrics(), server)  # type: ignore[no-untyped-call]
        trace_service.add_TraceServiceServicer_to_server(Traces(), server)  # type: ignore[no-untyped-call]
        if certs is None:
            collector.url = f"http://127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
        else:
            pair = (certs.server_key.read_bytes(), certs.server.read_bytes())
            port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
            collector.url = f"https://127.0.0.1:{port}"
        server.start()
        try:
            yield collector
        finally:
            server.stop(None).wait()


@contextlib.contextmanager
def talks(say: bytes, pause_s: float = 0.0) -> Iterator[str]:
    """The URL of something that takes what comes and says these bytes, one every `pause_s`, then nothing."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(5)
                    connection.recv(1 << 20)
                    for byte in say:
                        connection.sendall(bytes([byte]))
                        if pause_s and ended.wait(pause_s):
                            break
                    ended.wait(10 if not say or pause_s else 0)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()


def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.01)


async def holds(what: Callable[[], object]) -> None:
    await asyncio.to_thread(until, what)
