# SPDX-License-Identifier: Apache-2.0
"""Telemetry: what a collection costs the daemon, and what the daemon takes when nothing happens."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from bench.daemon import NIC, _place, _policy
from bench.rows import Row, row
from support.otlp import http_collector
from valkyrie.control.cli.client import UnixConnection
from valkyrie.control.lab.daemon import Daemon

SCRAPES = 50
IDLE_S = 15.0
SETTLE_S = 5.0  # so that the start, and the first sync, are over
COLLECTION_BUDGET, IDLE_BUDGET = "<= 10", "<= 3"
TICKS = os.sysconf("SC_CLK_TCK")


def run() -> Iterator[Row]:
    """Of the real daemon with 256 limits, policing a NIC."""
    with _place() as place, Daemon(place.inside, place.folder) as daemon:
        daemon.client.post(f"/v1/nics/{NIC}/attach", {"mode": "auto"})
        daemon.client.post("/v1/apply", {"document": {"limits": _policy()}})
        series = sum(not line.startswith(b"#") for line in _scraped(daemon).splitlines())
        spent, took = _collections(daemon)
        yield row("series of the metrics, 256 limits", series, "series")
        yield row(
            "collection of 1,000 series for Prometheus, CPU of the daemon", spent * 1e6 / series, "ms",
            COLLECTION_BUDGET,
        )  # fmt: skip
        yield row("GET /metrics, 256 limits, from asking to the last byte", took * 1000, "ms")
        time.sleep(SETTLE_S)
        alone = _idle(daemon)
        yield row("daemon's CPU, idle with 256 limits", alone, "% of a core", IDLE_BUDGET)
        with http_collector("127.0.0.1", place.inside.call) as collector:
            settings = {"enabled": True, "endpoint": collector.url, "interval_seconds": 1, "traces": True}
            daemon.client.put("/v1/telemetry", settings)
            time.sleep(SETTLE_S)
            began, told = time.monotonic(), len(collector.metrics)
            sending = _idle(daemon)
            each_s = (time.monotonic() - began) / (len(collector.metrics) - told)
            yield row("daemon's CPU, idle, and OTLP each second", sending, "% of a core", IDLE_BUDGET)
            yield row(
                "collection of 1,000 series for OTLP, and sending it, CPU of the daemon",
                (sending - alone) / 100 * each_s * 1e6 / series, "ms", COLLECTION_BUDGET,
            )  # fmt: skip
            assert collector.metrics, "nothing came to the collector"


def _scraped(daemon: Daemon) -> bytes:
    with contextlib.closing(UnixConnection(str(daemon.client.path), 30)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read()


def _collections(daemon: Daemon) -> tuple[float, float]:
    """CPU seconds of the daemon, and seconds, that one took."""
    before, began = _cpu(daemon), time.perf_counter()
    for _ in range(SCRAPES):
        _scraped(daemon)
    return (_cpu(daemon) - before) / SCRAPES, (time.perf_counter() - began) / SCRAPES


def _idle(daemon: Daemon) -> float:
    """Percent of a core."""
    before, began = _cpu(daemon), time.monotonic()
    time.sleep(IDLE_S)
    return (_cpu(daemon) - before) / (time.monotonic() - began) * 100


def _cpu(daemon: Daemon) -> float:
    fields = Path(f"/proc/{daemon._process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
