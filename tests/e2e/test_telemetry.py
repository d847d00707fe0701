# SPDX-License-Identifier: Apache-2.0
"""Telemetry of the real daemon over the real kernel."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.appliance import Appliance
from support.otlp import Collector, http_collector, until
from support.way import SLOW, Way

END_S = 5.0  # that the daemon takes to end, whatever the collector does


def scraped(appliance: Appliance) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples by name, then by the values of their labels."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(appliance.folder / "v.sock"))
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


@pytest.fixture
def collector(appliance: Appliance) -> Iterator[Collector]:
    """At the other end of the wire."""
    with http_collector("10.9.0.2", appliance.outside.namespace.call) as made:
        yield made


def test_metrics_after_traffic_are_what_limits_show_tells(appliance: Appliance, collector: Collector) -> None:
    appliance.start()
    appliance.done("PUT", "/v1/limits/slow", SLOW)
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    assert Way(appliance).passed(10) == 3
    counters = appliance.done("GET", "/v1/limits/slow")["counters"]
    seen = scraped(appliance)
    assert counters["dropped"] == 7
    assert counters["passed_bytes"] == counters["matched_bytes"] * 3 / 10
    for field, metric in (
        ("matched", "valkyrie_limit_packet_matched_total"),
        ("passed", "valkyrie_limit_packet_passed_total"),
        ("dropped", "valkyrie_limit_packet_dropped_total"),
        ("matched_bytes", "valkyrie_limit_io_matched_bytes_total"),
        ("passed_bytes", "valkyrie_limit_io_passed_bytes_total"),
        ("dropped_bytes", "valkyrie_limit_io_dropped_bytes_total"),
    ):
        assert seen[metric] == {("slow",): counters[field]}, metric
    assert seen["valkyrie_nic_attached"] == {("nic0",): 1}
    assert seen["valkyrie_nic_up"] == {("nic0",): 1}
    until(lambda: scraped(appliance)["valkyrie_table_usage"][()] >= 1)  # looked at once a second

    settings = {"enabled": True, "endpoint": collector.url, "interval_seconds": 1, "traces": True}
    appliance.done("PUT", "/v1/telemetry", settings)
    until(lambda: collector.metrics)
    assert collector.series("valkyrie.limit.packet.dropped")[("slow",)].as_int == 7
    appliance.done("DELETE", "/v1/limits/slow")
    until(lambda: {"DELETE /v1/limits/{name}", "ruleset.compile", "maps.publish"} <= names(collector))
    assert appliance.stop() == 0

    appliance.start()
    status = appliance.done("GET", "/v1/telemetry")
    assert (status["endpoint"], status["traces"]) == (collector.url, True)
    batches = len(collector.metrics)
    until(lambda: len(collector.metrics) > batches)


def names(collector: Collector) -> set[str]:
    return {span.name for span in collector.spans}


def test_a_collector_that_never_answers_delays_neither_start_nor_end(appliance: Appliance) -> None:
    with appliance.outside.namespace.call(socket.create_server, ("10.9.0.2", 0)) as silent:
        url = f"http://10.9.0.2:{silent.getsockname()[1]}"
        otlp = {"enabled": True, "endpoint": url, "interval_seconds": 1, "timeout_seconds": 60}
        appliance.configure(telemetry={"otlp": otlp})
        appliance.start()
        silent.settimeout(10)
        held, _ = silent.accept()
        with held:
            began = time.monotonic()
            appliance.done("PUT", "/v1/limits/slow", SLOW)
            assert time.monotonic() - began < 1
            began = time.monotonic()
            assert appliance.stop() == 0
            assert time.monotonic() - began < END_S


def test_the_level_and_form_of_the_log_are_those_asked_for(appliance: Appliance) -> None:
    appliance.configure(log="warning", log_format="json")
    appliance.start()
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    assert appliance.done("PUT", "/v1/telemetry", {"log": "info"})["log"] == "info"
    appliance.done("DELETE", "/v1/nics/nic0")
    assert appliance.process is not None
    appliance.process.terminate()
    _, told = appliance.process.communicate(timeout=30)
    appliance.process = None
    lines = [json.loads(line) for line in told.splitlines()]
    messages = {line["message"] for line in lines}
    assert "nic0: detached" in messages
    assert not any("attached in" in message for message in messages)
    assert {line["level"] for line in lines} <= {"info", "warning"}
