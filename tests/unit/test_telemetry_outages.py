# SPDX-License-Identifier: Apache-2.0
"""Collectors that refuse, are away, hang or talk nonsense, and what waits for them meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.trace import ReadableSpan

from support.exporting import enable, running
from support.otlp import grpc_collector, holds, http_collector, talks, until
from support.workbench import ADMIN, WEB, Bench
from valkyrie.control.telemetry.channel import ExportError, Payload
from valkyrie.control.telemetry.courier import END_S, FIRST_PAUSE_S, MOST_SPANS, Courier
from valkyrie.control.telemetry.meters import ExportMeter
from valkyrie.control.telemetry.over_grpc import GrpcChannel
from valkyrie.control.telemetry.over_http import HttpChannel


@pytest.mark.parametrize(
    ("status", "said"), [(500, "HTTP 500"), (401, "HTTP 401"), (404, "HTTP 404"), (302, "HTTP 302")]
)
async def test_a_collector_that_refuses_is_told_in_status_and_tried_again(
    bench: Bench, status: int, said: str
) -> None:
    with http_collector() as there:
        there.status = status
        async with running(bench):
            await enable(bench, there.url)
            await holds(lambda: said in bench.service.telemetry.status()["problem"])
            assert bench.service.telemetry.status()["state"] == "failing"
            assert bench.service.telemetry.status()["exports"]["metrics"]["failed"] >= 1
            there.status = 200
            await holds(lambda: bench.service.telemetry.status()["state"] == "ok")


def test_a_delivery_that_fails_is_not_repeated_before_its_pause_is_over() -> None:
    with http_collector() as there:
        there.status = 503
        channel = HttpChannel(there.url, (), None)
        with pytest.raises(ExportError, match="HTTP 503"):
            channel.send("metrics", MetricsData([]), 5)
        channel.close()
        assert there.requests == 1


def test_what_a_collector_refuses_of_a_batch_is_told() -> None:
    with http_collector() as there:
        refusal = ExportMetricsPartialSuccess(rejected_data_points=3)
        there.garbage = ExportMetricsServiceResponse(partial_success=refusal).SerializeToString()
        channel = HttpChannel(there.url, (), None)
        with pytest.raises(ExportError, match="refused 3 of the metrics"):
            channel.send("metrics", MetricsData([]), 5)
        channel.close()


def test_a_collector_by_grpc_that_was_away_long_is_reached_soon_after_it_is_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    channel = GrpcChannel(f"http://127.0.0.1:{port}", (), None)

    def reached() -> bool:
        with contextlib.suppress(ExportError):
            channel.send("metrics", MetricsData([]), 5)
            return True
        return False

    away = time.monotonic() + 6  # by then the library waits for some seconds between two tries
    while time.monotonic() < away:
        assert not reached()
        time.sleep(0.1)
    with grpc_collector(port=port):
        until(reached, 1.6)
    channel.close()


def test_a_collector_by_grpc_says_how_long_it_is_to_be_left_alone() -> None:
    with grpc_collector() as there:
        there.asks = 7
        channel = GrpcChannel(there.url, (), None)
        with pytest.raises(ExportError, match="RESOURCE_EXHAUSTED") as caught:
            channel.send("metrics", MetricsData([]), 5)
        assert (caught.value.wait_s, caught.value.permanent) == (7, False)
        channel.close()


async def test_a_busy_collector_is_left_alone_for_as_long_as_it_asks(bench: Bench) -> None:
    with http_collector() as there:
        there.status, there.answer_headers = 429, {"retry-after": "3"}
        async with running(bench):
            await enable(bench, there.url)
            await holds(lambda: there.requests)
            began = time.monotonic()
            there.status = 200
            await holds(lambda: there.requests >= 2)
            assert 2 < time.monotonic() - began < 5


async def test_garbage_for_an_answer_is_told(bench: Bench) -> None:
    with http_collector() as there:
        there.garbage = b"\xff\xff\xff"
        async with running(bench):
            await enable(bench, there.url)
            await holds(lambda: "is not OTLP" in bench.service.telemetry.status()["problem"])
    with talks(b"SSH-2.0-OpenSSH_9\r\n\r\n") as url:
        async with running(bench):
            await enable(bench, url)
            await holds(lambda: "does not speak HTTP" in bench.service.telemetry.status()["problem"])


@pytest.mark.parametrize("say", [b"", b"HTTP/1.1 200 OK\r\n" + b"x" * 10_000])
def test_a_collector_that_never_ends_its_answer_is_cut_off_in_time(say: bytes) -> None:
    with talks(say, pause_s=0.01) as url:
        channel = HttpChannel(url, (), None)
        began = time.monotonic()
        with pytest.raises(ExportError, match=r"did not answer within 0\.5 s"):
            channel.send("metrics", MetricsData([]), 0.5)
        assert time.monotonic() - began < 2


async def test_a_dead_collector_delays_neither_changes_nor_the_end(bench: Bench) -> None:
    with talks(b"") as url:
        task = asyncio.ensure_future(bench.service.telemetry.run())
        await enable(bench, url, timeout_seconds=60, traces=True)
        await holds(lambda: bench.service.telemetry._exporter.courier)
        await asyncio.sleep(0.3)  # so that a delivery hangs
        began = time.monotonic()
        with bench.service.telemetry.operation("PUT", None):
            await bench.service.limits.put(ADMIN, "web", WEB)
        assert time.monotonic() - began < 0.5
        began = time.monotonic()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert time.monotonic() - began < END_S + 0.5


class Stuck:
    """A channel that fails until it is let go."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.error: ExportError | None = ExportError("away")

    def send(self, signal: str, payload: Payload, timeout_s: float) -> None:
        if self.error is not None:
            raise self.error
        names = ["metrics"] if isinstance(payload, MetricsData) else [one.name for one in payload]
        self.taken += names

    def close(self) -> None:
        """Nothing."""


def a_span(number: int) -> ReadableSpan:
    return ReadableSpan(str(number))


def test_spans_wait_for_a_collector_that_comes_back_and_what_is_too_much_is_counted() -> None:
    channel, meter = Stuck(), ExportMeter()
    courier = Courier(lambda: channel, meter, timeout_s=1, wall=time.time)
    courier.start()
    for number in range(MOST_SPANS + 10):
        courier.give_span(a_span(number))
    until(lambda: courier.delivery.problem)
    channel.error = None
    until(lambda: len(channel.taken) == MOST_SPANS)
    assert channel.taken == [str(number) for number in range(MOST_SPANS)]
    (_, spans) = meter.figures()
    assert (spans.delivered, spans.dropped) == (MOST_SPANS, 10)
    courier.end()


def test_spans_that_are_refused_for_good_are_counted_and_not_sent_again() -> None:
    channel, meter = Stuck(), ExportMeter()
    channel.error = ExportError("refused", permanent=True)
    courier = Courier(lambda: channel, meter, timeout_s=1, wall=time.time)
    courier.start()
    courier.give_span(a_span(1))
    until(lambda: courier.delivery.problem)
    (_, spans) = meter.figures()
    assert (spans.failed, spans.dropped) == (1, 1)
    courier.end()


def test_metrics_that_could_not_be_sent_go_after_the_pause_and_not_with_the_next_batch_alone() -> None:
    channel, meter = Stuck(), ExportMeter()
    courier = Courier(lambda: channel, meter, timeout_s=1, wall=time.time)
    courier.start()
    courier.give_metrics(MetricsData([]))
    until(lambda: courier.delivery.problem)
    channel.error = None
    until(lambda: channel.taken == ["metrics"], 1.5 * FIRST_PAUSE_S)
    (metrics, _) = meter.figures()
    assert (metrics.delivered, metrics.failed, metrics.dropped) == (1, 1, 0)
    courier.end()


def test_metrics_that_are_refused_for_good_are_not_sent_again_and_the_next_batch_need_not_wait() -> None:
    channel, meter = Stuck(), ExportMeter()
    channel.error = ExportError("refused", permanent=True)
    courier = Courier(lambda: channel, meter, timeout_s=1, wall=time.time)
    courier.start()
    for tries in range(1, 4):
        courier.give_metrics(MetricsData([]))
        until(lambda tries=tries: courier.delivery.tries == tries, 1.5 * FIRST_PAUSE_S)  # type: ignore[misc]
    channel.error = None
    time.sleep(1.5 * FIRST_PAUSE_S)  # what must not come has no event
    assert channel.taken == []
    courier.end()


def test_what_waits_is_sent_at_the_end() -> None:
    channel, meter = Stuck(), ExportMeter()
    channel.error = None
    courier = Courier(lambda: channel, meter, timeout_s=1, wall=time.time)
    courier.start()
    courier.give_span(a_span(1))
    courier.end()
    assert channel.taken == ["1"]
