# SPDX-License-Identifier: Apache-2.0
"""Traces of control operations: `with span("compile"):` where something takes time. No libraries here:
tracing.py makes the spans, by OpenTelemetry's SDK, if somebody wants them.

Outside of a trace a span is one look at a context variable. Nothing on the way of packets or of store calls
has any.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.trace import Span

MOST_SPANS = 64  # of one trace; a loop in an operation must not fill the memory


class Maker(Protocol):
    """What makes spans: tracing.Tracing."""

    def begin(self, name: str, parent: Span) -> Span: ...

    def fail(self, span: Span, why: str) -> None: ...


@dataclass(slots=True)
class Trace:
    """One operation under way, and the span that new ones belong to."""

    maker: Maker
    root: Span
    current: Span
    left: list[int]  # how many spans may still be begun, shared by the whole trace


_current: ContextVar[Trace | None] = ContextVar("valkyrie_trace", default=None)


class _Nothing:
    __slots__ = ()

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return


_NOTHING = _Nothing()


class _Open:
    """A span from entering to leaving."""

    __slots__ = ("_token", "_trace")

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __enter__(self) -> None:
        self._token = _current.set(self._trace)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)
        if kind is not None:
            # The kind alone: texts of errors may quote what somebody sent.
            self._trace.maker.fail(self._trace.current, kind.__name__)
        self._trace.current.end()


def span(name: str) -> _Open | _Nothing:
    """A part of the operation under way; outside of a trace nothing. `name` must not come from input."""
    trace = _current.get()
    if trace is None or not trace.left[0]:
        return _NOTHING
    trace.left[0] -= 1
    made = trace.maker.begin(name, trace.current)
    return _Open(Trace(trace.maker, trace.root, made, trace.left))


def note(name: str, value: str | int) -> None:
    """Say something of the whole operation, as the id of its entry in the audit log."""
    trace = _current.get()
    if trace is not None:
        trace.root.set_attribute(name, value)


def failed(why: str) -> None:
    """The whole operation did; nothing of what somebody sent may be in `why`."""
    trace = _current.get()
    if trace is not None:
        trace.maker.fail(trace.root, why)


def trace_id() -> str | None:
    """Of the operation under way, as 32 hexadecimal digits."""
    trace = _current.get()
    return None if trace is None else f"{trace.root.get_span_context().trace_id:032x}"


def under_way() -> Trace | None:
    """The trace, for `resumed` by whoever goes on with the work later."""
    return _current.get()


@contextlib.contextmanager
def resumed(trace: Trace | None, name: str) -> Iterator[None]:
    """A span of an earlier operation, in whatever task; nothing without one."""
    token = _current.set(trace)
    try:
        with span(name):
            yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def opened(maker: Maker, root: Span) -> Iterator[Span]:
    """The operation that `root` stands for, until it leaves."""
    with _Open(Trace(maker, root, root, [MOST_SPANS])):
        yield root
