# SPDX-License-Identifier: Apache-2.0
"""Snapshots as OpenTelemetry's data of metrics, for its exporters.

Not by its instruments: they want each value of a histogram as it comes, and ours are counted already.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from valkyrie.control.telemetry.catalogue import samples
from valkyrie.control.telemetry.metric import Distribution, Family, Point
from valkyrie.control.telemetry.snapshot import Snapshot
from valkyrie.control.version import installed

NS = 1_000_000_000
UNKNOWN = 0  # when a counter began: the kernel's outlive the daemon
CUMULATIVE = sdk.AggregationTemporality.CUMULATIVE


def metrics_data(seen: Snapshot, resource: Resource) -> sdk.MetricsData:
    """For a thread: some milliseconds."""
    now = round(seen.wall * NS)
    began = now - round(seen.process.uptime_s * NS)
    metrics = [_metric(family, now, began) for family in samples(seen) if family.points]
    scope = sdk.ScopeMetrics(InstrumentationScope("valkyrie", installed()), metrics, "")
    return sdk.MetricsData([sdk.ResourceMetrics(resource, [scope], "")])


def resource_of(instance: str) -> Resource:
    """Who tells. Not Resource.create: that asks the environment, and whatever plug-ins are installed."""
    return Resource(
        {
            "service.name": "valkyried",
            "service.namespace": "valkyrie",
            "service.version": installed(),
            "service.instance.id": instance,
            "host.name": socket.gethostname(),
        }
    )


def _metric(family: Family, now: int, began: int) -> sdk.Metric:
    told = family.metric
    data: sdk.Sum | sdk.Gauge | sdk.Histogram
    if told.kind == "histogram":
        data = sdk.Histogram(list(_distributions(family, now, began)), CUMULATIVE)
    elif told.kind == "counter":
        data = sdk.Sum(_numbers(family, now), CUMULATIVE, is_monotonic=True)
    else:
        data = sdk.Gauge(_numbers(family, now))
    return sdk.Metric(told.name, told.help, told.unit, data)


def _numbers(family: Family, now: int) -> list[sdk.NumberDataPoint]:
    names = family.metric.attributes
    return [
        sdk.NumberDataPoint(_attributes(names, point), UNKNOWN, now, _number(point))
        for point in family.points
    ]


def _number(point: Point) -> int | float:
    assert not isinstance(point[1], Distribution)
    return point[1]


def _distributions(family: Family, now: int, began: int) -> Iterator[sdk.HistogramDataPoint]:
    for point in family.points:
        value = point[1]
        assert isinstance(value, Distribution)
        yield sdk.HistogramDataPoint(
            attributes=_attributes(family.metric.attributes, point),
            start_time_unix_nano=began,
            time_unix_nano=now,
            count=sum(value.counts),
            sum=value.total,
            bucket_counts=value.counts,
            explicit_bounds=value.bounds,
            min=None,  # type: ignore[arg-type] # OTLP has them as optional, and so has the SDK's encoder
            max=None,  # type: ignore[arg-type]
        )


def _attributes(names: Sequence[str], point: Point) -> dict[str, str]:
    return dict(zip(names, point[0], strict=True))
