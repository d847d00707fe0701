# SPDX-License-Identifier: Apache-2.0
"""OTLP to a real collector in this process, by HTTP and gRPC: counters, headers, traces, TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics.export import MetricsData

from support.certs import make_certs
from support.exporting import SECRET, enable, running
from support.otlp import Collector, grpc_collector, holds, http_collector
from support.served import served
from support.workbench import ADMIN, WEB, Bench
from valkyrie.control.cli.client import Client
from valkyrie.control.config import Settings
from valkyrie.control.telemetry.channel import open_channel
from valkyrie.control.telemetry.settings import OtlpSettings


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
