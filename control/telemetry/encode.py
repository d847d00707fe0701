# SPDX-License-Identifier: Apache-2.0
"""Snapshots and spans as OTLP messages.

Made from the catalogue without OpenTelemetry's SDK: that has no histogram that is observed, keeps at most
2,000 series a metric, and takes four times as long; the messages are the same.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as metrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2 as traces

from valkyrie.control.telemetry.catalogue import samples
from valkyrie.control.telemetry.metric import Distribution, Family, Point
from valkyrie.control.telemetry.snapshot import Snapshot
from valkyrie.control.telemetry.spans import Attribute, Span
from valkyrie.control.version import installed

NS = 1_000_000_000
CUMULATIVE = metrics.AGGREGATION_TEMPORALITY_CUMULATIVE


def metrics_request(seen: Snapshot, instance: str) -> bytes:
    """For a thread: some milliseconds. Counters begin at an unknown time: the kernel's outlive the daemon."""
    now = round(seen.wall * NS)
    began = now - round(seen.process.uptime_s * NS)
    scope = metrics.ScopeMetrics(
        scope=_scope(), metrics=[_metric(family, now, began) for family in samples(seen) if family.points]
    )
    request = ExportMetricsServiceRequest(
        resource_metrics=[metrics.ResourceMetrics(resource=_resource(instance), scope_metrics=[scope])]
    )
    return bytes(request.SerializeToString())


def traces_request(spans: Sequence[Span], instance: str) -> bytes:
    scope = traces.ScopeSpans(scope=_scope(), spans=[_span(one) for one in spans])
    request = ExportTraceServiceRequest(
        resource_spans=[traces.ResourceSpans(resource=_resource(instance), scope_spans=[scope])]
    )
    return bytes(request.SerializeToString())


def _resource(instance: str) -> Resource:
    return Resource(
        attributes=_attributes(
            {
                "service.name": "valkyried",
                "service.namespace": "valkyrie",
                "service.version": installed(),
                "service.instance.id": instance,
                "host.name": socket.gethostname(),
            }
        )
    )


def _scope() -> InstrumentationScope:
    return InstrumentationScope(name="valkyrie", version=installed())


def _attributes(given: Mapping[str, Attribute]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(value)) for name, value in given.items()]


def _value(value: Attribute) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=value)


def _metric(family: Family, now: int, began: int) -> metrics.Metric:
    told = family.metric
    made = metrics.Metric(name=told.name, description=told.help, unit=told.unit)
    if told.kind == "histogram":
        made.histogram.aggregation_temporality = CUMULATIVE
        made.histogram.data_points.extend(_distributions(told.attributes, family.points, now, began))
    elif told.kind == "counter":
        made.sum.aggregation_temporality = CUMULATIVE
        made.sum.is_monotonic = True
        made.sum.data_points.extend(_numbers(told.attributes, family.points, now))
    else:
        made.gauge.data_points.extend(_numbers(told.attributes, family.points, now))
    return made


def _numbers(names: Sequence[str], points: Iterable[Point], now: int) -> Iterable[metrics.NumberDataPoint]:
    for values, value in points:
        labels = [
            KeyValue(key=name, value=AnyValue(string_value=text))
            for name, text in zip(names, values, strict=True)
        ]
        if isinstance(value, int):
            yield metrics.NumberDataPoint(attributes=labels, time_unix_nano=now, as_int=value)
        else:
            assert isinstance(value, float)
            yield metrics.NumberDataPoint(attributes=labels, time_unix_nano=now, as_double=value)


def _distributions(
    names: Sequence[str], points: Iterable[Point], now: int, began: int
) -> Iterable[metrics.HistogramDataPoint]:
    for values, value in points:
        assert isinstance(value, Distribution)
        yield metrics.HistogramDataPoint(
            attributes=_attributes(dict(zip(names, values, strict=True))),
            start_time_unix_nano=began,
            time_unix_nano=now,
            count=sum(value.counts),
            sum=value.total,
            bucket_counts=value.counts,
            explicit_bounds=value.bounds,
        )


def _span(one: Span) -> traces.Span:
    code = traces.Status.STATUS_CODE_ERROR if one.error else traces.Status.STATUS_CODE_UNSET
    return traces.Span(
        trace_id=one.trace_id.to_bytes(16, "big"),
        span_id=one.span_id.to_bytes(8, "big"),
        parent_span_id=one.parent.to_bytes(8, "big") if one.parent else b"",
        name=one.name,
        kind=traces.Span.SPAN_KIND_SERVER if one.server else traces.Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=one.began,
        end_time_unix_nano=one.ended,
        attributes=_attributes(one.attributes),
        status=traces.Status(code=code, message=one.error),
    )
