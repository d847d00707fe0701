# SPDX-License-Identifier: Apache-2.0
"""OTLP to a real collector in this process, and to some that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.trace import ReadableSpan

from support.certs import make_certs
from support.otlp import Collector, grpc_collector, holds, http_collector, talks, until
from support.served import served
from support.workbench import ADMIN, WEB, Bench
from valkyrie.control.cli.client import Client
from valkyrie.control.config import Settings
from valkyrie.control.errors import Conflict, InvalidInput
from valkyrie.control.telemetry.channel import ExportError, Payload, open_channel, parse_headers
from valkyrie.control.telemetry.courier import END_S, FIRST_PAUSE_S, MOST_SPANS, Courier
from valkyrie.control.telemetry.meters import ExportMeter
from valkyrie.control.telemetry.over_grpc import GrpcChannel
from valkyrie.control.telemetry.over_http import HttpChannel
from valkyrie.control.telemetry.settings import OtlpSettings

SECRET = b"authorization=Bearer%20wordy-secret"


@contextlib.asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[None]:
    task = asyncio.ensure_future(bench.service.telemetry.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def enable(bench: Bench, url: str, **more: Any) -> dict[str, Any]:
    return await bench.service.telemetry.change(
        ADMIN, {"enabled": True, "endpoint": url, "interval_seconds": 1, **more}
    )


@pytest.fixture(params=["http", "grpc"])
def collector(request: pytest.FixtureRequest) -> Iterator[tuple[str, Collector]]:
    kinds: dict[str, Callable[[], AbstractContextManager[Collector]]] = {
        "http": http_collector, "grpc": grpc_collector,
    }  # fmt: skip
    with kinds[request.param]() as made:
        yield request.param, made


async def test_a_collector_gets_the_counters_of_the_kernel(
    bench: Bench, collector: tuple[str, Collector]
) -> None:
    protocol, there = collector
    await bench.service.limits.put(ADMIN, "web", WEB)
    bench.engine.counters[bench.service.core.world.allotment.slots["web"].slot]["dropped"] = 1 << 60
    async with running(bench):
        await enable(bench, there.url, protocol=protocol)
        await holds(lambda: there.metrics)
        await holds(lambda: bench.service.telemetry.status()["state"] == "ok")
    point = there.series("valkyrie.limit.packet.dropped")[("web",)]
    assert point.as_int == 1 << 60
    (resource,) = there.metrics[-1].resource_metrics
    told = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert told["service.name"] == "valkyried"


async def test_headers_are_sent_and_a_new_secret_counts_at_once(
    bench: Bench, collector: tuple[str, Collector]
) -> None:
    protocol, there = collector
    await bench.service.credentials.put(ADMIN, "otel", SECRET)
    async with running(bench):
        answer = await enable(bench, there.url, protocol=protocol, headers_credential="otel")
        assert "wordy" not in repr(answer)
        await holds(lambda: there.headers)
        assert there.headers[-1]["authorization"] == "Bearer wordy-secret"
        await bench.service.credentials.rotate(ADMIN, "otel", b"authorization=Basic%20eA,x-scope=a")
        await holds(lambda: there.headers[-1]["authorization"] == "Basic eA")
        assert there.headers[-1]["x-scope"] == "a"


async def test_a_trace_goes_from_the_call_to_the_maps_with_the_audit_id(
    bench: Bench, collector: tuple[str, Collector]
) -> None:
    protocol, there = collector
    async with running(bench):
        await enable(bench, there.url, protocol=protocol, traces=True)
        await holds(lambda: there.metrics)
        parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
        with bench.service.telemetry.operation("PUT /v1/limits/{name}", parent) as root:
            assert root is not None
            await bench.service.limits.put(ADMIN, "web", WEB)
        await holds(lambda: len(there.spans) >= 4)
    by_name = {span.name: span for span in there.spans}
    top = by_name["PUT /v1/limits/{name}"]
    assert {span.trace_id.hex() for span in there.spans} == {"ab" * 16}
    assert top.parent_span_id.hex() == "cd" * 8
    assert by_name["ruleset.compile"].parent_span_id == top.span_id
    assert by_name["state.write"].parent_span_id == top.span_id
    assert by_name["maps.publish"].parent_span_id == by_name["state.write"].span_id
    ids = {pair.key: pair.value.int_value for pair in top.attributes}
    newest = (await bench.service.views.audit(1))["audit"][0]
    assert ids["valkyrie.audit.id"] == newest["id"] > 0


async def test_no_span_is_made_unless_traces_are_asked_for(bench: Bench) -> None:
    with http_collector() as there:
        async with running(bench):
            await enable(bench, there.url)
            await holds(lambda: there.metrics)
            with bench.service.telemetry.operation("PUT", None) as root:
                assert root is None


def test_the_daemon_starts_without_the_libraries_of_telemetry() -> None:
    ask = (
        "import sys, valkyrie.control.api.app, valkyrie.control.daemon, valkyrie.control.telemetry.runtime\n"
        "print(sorted({'opentelemetry', 'requests', 'grpc'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, check=False
    )
    assert (told.stdout, told.stderr) == ("[]\n", "")


async def test_what_was_set_lasts_and_reset_goes_back(bench: Bench) -> None:
    with http_collector() as there:
        await enable(bench, there.url)
        service = await bench.again()
        assert service.telemetry.status()["endpoint"] == there.url
        assert service.telemetry.status()["set"] == ["enabled", "endpoint", "interval_seconds"]
        await service.telemetry.reset(ADMIN)
        assert service.telemetry.status()["state"] == "off"
        service = await bench.again()
        assert service.telemetry.status()["set"] == []


async def test_a_damaged_file_of_what_was_set_does_not_keep_the_daemon_from_starting(bench: Bench) -> None:
    for content in ("{", "[]", '{"endpoint": "no url"}', '{"bogus": 1}'):
        (bench.folder / "telemetry.json").write_text(content)
        service = await bench.again()
        assert service.telemetry.status()["state"] == "off"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"endpoint": "ftp://x"}, "endpoint"),
        ({"endpoint": "http://user:pw@host"}, "endpoint"),
        ({"endpoint": "http://host:99999"}, "endpoint"),
        ({"interval_seconds": 0.5}, "interval_seconds"),
        ({"prometheus_listen": "localhost"}, "prometheus_listen"),
        ({"enabled": True, "headers_credential": "missing"}, "headers_credential"),
        ({"endpoint": "http://192.0.2.1:4318", "headers_credential": "otel"}, "headers_credential"),
    ],
)
async def test_what_cannot_work_is_refused_and_nothing_is_kept(
    bench: Bench, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await bench.service.telemetry.change(ADMIN, fields)
    assert caught.value.where == field
    assert "pw" not in str(caught.value)
    assert bench.service.telemetry.status()["set"] == []


async def test_of_two_changes_at_once_none_undoes_the_other(bench: Bench) -> None:
    change = bench.service.telemetry.change
    await asyncio.gather(change(ADMIN, {"interval_seconds": 7}), change(ADMIN, {"timeout_seconds": 3}))
    settings = (await bench.again()).telemetry.settings.otlp
    assert (settings.interval_seconds, settings.timeout_seconds) == (7, 3)


async def test_a_credential_in_use_by_telemetry_is_not_deleted_by_mistake(bench: Bench) -> None:
    await bench.service.credentials.put(ADMIN, "otel", SECRET)
    await enable(bench, "http://localhost:1", headers_credential="otel")
    (row,) = bench.service.credentials.listing()["credentials"]
    assert row["used_by"] == ["telemetry.otlp.headers_credential"]
    with pytest.raises(Conflict):
        await bench.service.credentials.delete(ADMIN, "otel", force=False)


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


async def test_after_a_change_the_status_tells_nothing_of_what_was_before(bench: Bench) -> None:
    with http_collector() as there:
        there.status = 500
        async with running(bench):
            await enable(bench, there.url)
            await holds(lambda: bench.service.telemetry.status()["state"] == "failing")
            answer = await bench.service.telemetry.change(ADMIN, {"prometheus_listen": ""})
            assert answer["state"] == "failing", "nothing of the collector was changed"
            answer = await enable(bench, "http://127.0.0.1:1")
            assert (answer["state"], answer["problem"]) == ("waiting", "")


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


def test_neither_proxies_nor_passwords_of_the_surroundings_are_used(
    collector: tuple[str, Collector], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol, there = collector
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login who password wordy")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    channel = open_channel(OtlpSettings(endpoint=there.url, protocol=protocol), ())
    channel.send("metrics", MetricsData([]), 5)
    channel.close()
    assert "authorization" not in there.headers[-1]


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
    courier.give_span(a_span(1))
    until(lambda: courier.delivery.problem)
    (_, spans) = meter.figures()
    assert (spans.failed, spans.dropped) == (1, 1)
    courier.end()


def test_metrics_that_could_not_be_sent_go_after_the_pause_and_not_with_the_next_batch_alone() -> None:
    channel, meter = Stuck(), ExportMeter()
    courier = Courier(lambda: channel, meter, timeout_s=1, wall=time.time)
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
    courier.give_span(a_span(1))
    courier.end()
    assert channel.taken == ["1"]


@pytest.mark.parametrize("text", ["novalue", "a b=c", "x=\u00e9", "x=a%0d%0aevil: 1", "=x"])
def test_headers_that_are_none_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_headers(f"ok=1,{text}")
    assert "header 2" in caught.value.what
    assert text not in str(caught.value)


async def test_the_command_line_passes_the_callers_trace_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{'ab' * 16}-{'cd' * 8}-01")
    settings = Settings(state_dir=tmp_path / "state", socket=tmp_path / "v.sock")
    with http_collector() as there:
        async with served(settings) as api:
            task = asyncio.ensure_future(api.service.telemetry.run())
            client = Client(str(settings.socket))
            wanted = {"enabled": True, "endpoint": there.url, "interval_seconds": 1, "traces": True}
            await asyncio.to_thread(client.put, "/v1/telemetry", wanted)
            await holds(lambda: there.metrics)
            await asyncio.to_thread(client.put, "/v1/limits/web", WEB)
            await holds(lambda: any(span.name == "PUT /v1/limits/{name}" for span in there.spans))
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    root = next(span for span in there.spans if span.name == "PUT /v1/limits/{name}")
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == ("ab" * 16, "cd" * 8)
    told = {pair.key: pair.value for pair in root.attributes}
    assert told["http.response.status_code"].int_value == 200


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_a_collector_by_tls_is_believed_if_its_authority_is_named(
    bench: Bench, tmp_path: Path, protocol: str
) -> None:
    certs, others = make_certs(tmp_path / "certs"), make_certs(tmp_path / "others")
    with http_collector(certs=certs) if protocol == "http" else grpc_collector(certs) as there:
        async with running(bench):
            status = bench.service.telemetry.status
            await enable(bench, there.url, protocol=protocol, ca=str(others.ca))
            await holds(lambda: status()["state"] == "failing")
            assert not there.metrics
            await enable(bench, there.url, protocol=protocol, ca=str(tmp_path / "missing.pem"))
            await holds(lambda: "missing.pem" in status()["problem"])
            await enable(bench, there.url, protocol=protocol, ca=str(certs.ca))
            await holds(lambda: there.metrics)
