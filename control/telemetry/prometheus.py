# SPDX-License-Identifier: Apache-2.0
"""A snapshot as Prometheus text, by one custom collector over the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from valkyrie.control.telemetry.catalogue import samples
from valkyrie.control.telemetry.metric import Distribution, Family
from valkyrie.control.telemetry.snapshot import Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Once(Collector):
    """The families of one snapshot."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not use the families up."""
        return ()

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            if family.points:
                yield _told(family)


def text(seen: Snapshot) -> bytes:
    """For a thread: some milliseconds."""
    registry = CollectorRegistry()
    registry.register(_Once(samples(seen)))
    return generate_latest(registry)


def _told(family: Family) -> Metric:
    metric = family.metric
    name, labels = metric.prometheus, metric.labels
    if metric.kind == "histogram":
        return _histogram(family)
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    made = kind(name, metric.help, labels=labels)
    for values, value in family.points:
        assert not isinstance(value, Distribution), metric.name
        made.add_metric(values, value)
    return made


def _histogram(family: Family) -> Metric:
    made = HistogramMetricFamily(family.metric.prometheus, family.metric.help, labels=family.metric.labels)
    for values, value in family.points:
        assert isinstance(value, Distribution), family.metric.name
        total, buckets = 0, []
        for bound, count in zip((*value.bounds, float("inf")), value.counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
        made.add_metric(values, buckets, value.total)
    return made
