# SPDX-License-Identifier: Apache-2.0
"""The catalogue, and Prometheus text as its own client reads it: on the socket and by TCP."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.ctl import ROOT
from support.notes import note
from support.otlp import holds
from support.served import served
from support.workbench import ADMIN, WEB, Bench
from valkyrie.adapters.notify.message import Severity
from valkyrie.control import abi
from valkyrie.control.api.table import ROUTES
from valkyrie.control.config import Settings
from valkyrie.control.errors import Unavailable
from valkyrie.control.telemetry import scrape
from valkyrie.control.telemetry.catalogue import CATALOGUE, samples
from valkyrie.control.telemetry.prometheus import text
from valkyrie.control.telemetry.reference import reference
from valkyrie.control.telemetry.scrape import CONNECTIONS, MOST_HEAD, Scraper
from valkyrie.control.telemetry.snapshot import take

DASHBOARD = ROOT / "docs" / "grafana" / "valkyrie.json"
PICTURE = ROOT / "docs" / "images" / "dashboard.svg"
SEVERITIES = ("info", "warning", "error", "critical")
QUERY_WORDS = {"by", "le", "sum", "rate", "max", "min", "on", "ignoring", "group_left", "clamp_min"}


def parsed(raw: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Samples by name, then by labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(raw):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


async def test_prometheus_text_has_the_counters_of_each_limit(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    slot = bench.service.core.world.allotment.slots["web"].slot
    for number, field in enumerate(abi.LIMIT_STATS.names or ()):
        bench.engine.counters[slot][field] = 100 + number
    bench.engine.counters[slot]["matched_bytes"] = 1000
    seen = parsed(text(await take(bench.service)).decode())
    label = (("valkyrie_limit_name", "web"),)
    assert seen["valkyrie_limit_packet_matched_total"] == {label: 100}
    assert seen["valkyrie_limit_packet_dropped_total"] == {label: 102}
    assert seen["valkyrie_limit_io_dropped_bytes_total"] == {label: 105}
    assert seen["valkyrie_limit_io_shadow_dropped_bytes_total"] == {label: 106}
    assert seen["valkyrie_limit_io_passed_bytes_total"] == {label: 1000 - 105 - 107}
    assert seen["valkyrie_limit_lease_purchases_total"] == {label: 108}
    assert seen["valkyrie_table_limit"] == {(): 8192}
    assert "valkyrie_sync_lag_seconds" not in seen


async def test_alerts_and_what_does_not_reach_people_are_among_the_metrics(bench: Bench) -> None:
    told = bench.service.notifications
    task = asyncio.ensure_future(told.run())
    try:
        await holds(lambda: told.dispatcher._open)
        nobody = {"kind": "webhook", "url": "http://127.0.0.1:1/"}
        await told.add(ADMIN, "hook", nobody, "warning", {})
        for severity in (Severity.ERROR, Severity.INFO):
            told.dispatcher.submit(note(severity=severity))
        await holds(lambda: told.brief()["failing"])
        seen = parsed(text(await take(bench.service)).decode())
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    hook = (("valkyrie_notification_adapter", "hook"),)
    assert seen["valkyrie_notification_failing"] == {hook: 1}
    assert seen["valkyrie_notification_queued"] == {hook: 1}
    assert seen["valkyrie_notification_dropped_total"] == seen["valkyrie_notification_dead"] == {hook: 0}
    assert seen["valkyrie_notification_unheard_total"] == {(): 1}
    assert seen["valkyrie_alert_firing"] == {(("valkyrie_alert_severity", name),): 0 for name in SEVERITIES}


async def test_firing_alerts_are_counted_by_severity(bench: Bench) -> None:
    await bench.service.credentials.put(ADMIN, "old", b"x")
    bench.time.now += 60
    fields = {"when": "credential-old", "above": "1s", "severity": "error"}
    await bench.service.alerts.add(ADMIN, "old", fields)
    await bench.service.alerts.look()
    seen = parsed(text(await take(bench.service)).decode())["valkyrie_alert_firing"]
    assert seen[(("valkyrie_alert_severity", "error"),)] == 1


async def test_histograms_are_cumulative_and_end_with_all(bench: Bench) -> None:
    for seconds in (0.0001, 0.003, 60.0):
        bench.service.meters.calls.note("GET", "/v1/status", 200, seconds)
    seen = parsed(text(await take(bench.service)).decode())
    buckets = {
        dict(labels)["le"]: n for labels, n in seen["http_server_request_duration_seconds_bucket"].items()
    }
    assert (buckets["0.001"], buckets["0.005"], buckets["10.0"], buckets["+Inf"]) == (1, 2, 2, 3)
    assert list(seen["http_server_request_duration_seconds_count"].values()) == [3]


def test_names_and_units_are_well_formed_and_unique() -> None:
    assert max(Counter(metric.name for metric in CATALOGUE).values()) == 1
    assert max(Counter(metric.prometheus for metric in CATALOGUE).values()) == 1
    for metric in CATALOGUE:
        assert re.fullmatch(r"(valkyrie|process|http)(\.[a-z][a-z_]*)+", metric.name), metric.name
        assert metric.unit in ("", "s", "By", "1") or re.fullmatch(r"\{[a-z_]+\}", metric.unit), metric.name
        assert metric.help.endswith("."), metric.name
        assert not metric.name.endswith(("_total", ".total")), metric.name


async def test_every_series_has_each_attribute_once(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    for family in samples(await take(bench.service)):
        seen = [values for values, _ in family.points]
        assert len(set(seen)) == len(seen), family.metric.name
        assert {len(values) for values in seen} <= {len(family.metric.attributes)}, family.metric.name


def test_the_page_of_metrics_is_current() -> None:
    made = "python -m valkyrie.control.telemetry.reference > docs/metrics.md"
    assert (ROOT / "docs" / "metrics.md").read_text() == reference(), f"run: {made}"


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_the_dashboard_asks_for_metrics_and_labels_that_there_are() -> None:
    board = json.loads(DASHBOARD.read_text())
    known = {}
    for metric in CATALOGUE:
        endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
        for ending in endings[metric.kind]:
            known[metric.prometheus + ending] = {*metric.labels, "le"}
    shown = set()
    queries = [target["expr"] for panel in panels(board) for target in panel["targets"]]
    queries += [entry["query"] for entry in board["templating"]["list"] if entry["type"] == "query"]
    for query in queries:
        names = set(re.findall(r"\b(?:valkyrie|process|http)_[a-z0-9_]+", query)) - {
            label for labels in known.values() for label in labels
        }
        assert names, query
        assert names <= known.keys(), query
        labels = set(re.findall(r"[{,]\s*([a-z_]+)\s*[=!]", query))
        for group in re.findall(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)", query):
            labels |= {word.strip() for word in group.split(",")}
        for name in names:
            assert labels - {"instance", "job"} <= set().union(*(known[one] for one in names)), (name, query)
        shown |= names
    assert len(shown) > 25
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_picture_of_the_dashboard_has_its_panels() -> None:
    board = json.loads(DASHBOARD.read_text())
    titles = [panel["title"] for panel in board["panels"]]
    drawn = re.findall(r'font-weight="500">(?:⌄  )?([^<]+)</text>', PICTURE.read_text())
    assert drawn == titles, "run: sudo .venv/bin/python docs/images/dashboard.py"


async def test_the_api_serves_metrics_and_counts_its_own_calls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "valkyrie")
    settings = Settings(state_dir=tmp_path / "state", socket=tmp_path / "v.sock")
    async with served(settings) as api:
        assert (await api.call("PUT", "/v1/limits/web", WEB))[0] == 200
        assert (await api.call("GET", "/v1/limits/no-such"))[0] == 404
        assert (await api.call("GET", "/v1/nowhere"))[0] == 404
        raw = await asyncio.to_thread(scraped, settings.socket)
    seen = parsed(raw)["http_server_request_duration_seconds_count"]
    calls = {tuple(value for _, value in labels): count for labels, count in seen.items()}
    assert calls == {("PUT", "200", "/v1/limits/{name}"): 1, ("GET", "404", "/v1/limits/{name}"): 1}
    assert {route for _, _, route in calls} <= {route.path for route in ROUTES}
    assert "PUT /v1/limits/{name}: 200 in " in caplog.text, "who sets the level to debug is told each call"


def scraped(path: Path) -> str:
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.getheader("content-type", "").startswith("text/plain; version=0.0.4")
        return answer.read().decode()


@contextlib.asynccontextmanager
async def scraper(texts: list[bytes], now: list[float]) -> AsyncIterator[int]:
    async def collect() -> bytes:
        return texts.pop(0)

    made = Scraper(collect, lambda: now[0])
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    await made.open(f"127.0.0.1:{port}")
    try:
        yield port
    finally:
        await made.close()


async def exchange(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


GET = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"


async def test_by_tcp_there_is_get_metrics_and_nothing_else() -> None:
    async with scraper([b"one 1\n"], [0.0]) as port:
        answer = await exchange(port, GET)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\none 1\n")
        for sent, status in (
            (b"GET /v1/limits HTTP/1.1\r\n\r\n", b"404"),
            (b"DELETE /metrics HTTP/1.1\r\n\r\n", b"405"),
            (b"SSH-2.0\r\n\r\n", b"400"),
        ):
            assert (await exchange(port, sent)).split(b" ")[1] == status
        assert await exchange(port, b"GET /" + b"x" * (2 * MOST_HEAD) + b" HTTP/1.1\r\n\r\n") == b""


async def test_however_many_ask_there_is_one_collection_a_second() -> None:
    now = [0.0]
    async with scraper([b"one 1\n", b"one 2\n"], now) as port:
        answers = await asyncio.gather(*(exchange(port, GET) for _ in range(5)))
        assert {answer[-6:] for answer in answers} == {b"one 1\n"}
        now[0] = 1.0
        assert (await exchange(port, GET)).endswith(b"one 2\n")


async def test_who_scrapes_what_cannot_be_looked_at_is_told_so_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Away(list[bytes]):
        def pop(self, index: Any = -1) -> bytes:
            raise Unavailable("the maps are gone", "start it again")

    async with scraper(Away(), [0.0]) as port:
        answer = await exchange(port, GET)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b"the maps are gone\n")
    assert not caplog.records


async def test_those_who_hold_connections_do_not_hold_more_than_there_are() -> None:
    async with scraper([b"one 1\n"], [0.0]) as port:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
        assert await exchange(port, GET) == b""
        for _, writer in idle:
            writer.close()
        async with asyncio.timeout(5):
            while not (await exchange(port, GET)).endswith(b"one 1\n"):
                pass


async def test_the_tcp_port_opens_and_closes_as_it_is_set(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        where = f"127.0.0.1:{port}"
        task = asyncio.ensure_future(bench.service.telemetry.run())
        await bench.service.telemetry.change(ADMIN, {"prometheus_listen": where})
        prometheus = bench.service.telemetry.status
        await holds(lambda: "cannot listen" in prometheus()["prometheus"]["problem"])
    try:
        bench.service.telemetry.apply()
        await holds(lambda: prometheus()["prometheus"]["listening"] == where)
        assert b"valkyrie_table_limit 8192" in await exchange(port, GET)
        answer = await bench.service.telemetry.change(ADMIN, {"prometheus_listen": ""})
        assert not answer["prometheus"]["listening"]
        await holds(lambda: not prometheus()["prometheus"]["listening"])
        assert prometheus()["prometheus"]["listen"] is None
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_who_does_not_read_is_cut_off_in_time_however_little_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scrape, "SECONDS", 0.2)
    text = bytes(60_000)  # less than the transport takes without a wait
    made = Scraper(lambda: asyncio.sleep(0, text))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    await made.open(f"127.0.0.1:{port}")
    assert made._server is not None
    made._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", port))
        reader.sendall(GET)
        await holds(lambda: made._tasks)
        await holds(lambda: not made._tasks)
        read = await asyncio.to_thread(lambda: b"".join(iter(lambda: reader.recv(1 << 16), b"")))
    assert 0 < len(read) < len(text)
    await made.close()
