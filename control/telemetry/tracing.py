# SPDX-License-Identifier: Apache-2.0
"""Spans by OpenTelemetry's SDK, for spans.py. Loaded when somebody wants traces.

What has ended goes to `give`, not to the SDK's batch processor: that one loses a batch that is not taken
without telling, and ends only when the collector lets it, after 30 s at the latest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from valkyrie.control.telemetry.spans import opened
from valkyrie.control.version import installed


class Tracing:
    """`give` takes each span as it ends, from any thread."""

    def __init__(
        self, give: Callable[[ReadableSpan], None], random: Callable[[int], bytes], resource: Resource
    ) -> None:
        provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=_Ids(random))
        provider.add_span_processor(_Giver(give))
        self._tracer = provider.get_tracer("valkyrie", installed())

    def operation(self, name: str, traceparent: str | None) -> AbstractContextManager[Span]:
        """A new trace, or the caller's if `traceparent` (W3C) says which; a malformed one is ignored."""
        caller = TraceContextTextMapPropagator().extract({"traceparent": traceparent or ""}, Context())
        return opened(self, self._tracer.start_span(name, caller, SpanKind.SERVER))

    def begin(self, name: str, parent: Span) -> Span:
        return self._tracer.start_span(name, set_span_in_context(parent, Context()))

    def fail(self, span: Span, why: str) -> None:
        span.set_status(Status(StatusCode.ERROR, why))


class _Giver(SpanProcessor):
    def __init__(self, give: Callable[[ReadableSpan], None]) -> None:
        self._give = give

    def on_end(self, span: ReadableSpan) -> None:
        self._give(span)


class _Ids(IdGenerator):
    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random

    def generate_trace_id(self) -> int:
        return int.from_bytes(self._random(16), "big") or 1  # the standard forbids zeros

    def generate_span_id(self) -> int:
        return int.from_bytes(self._random(8), "big") or 1
