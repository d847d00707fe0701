# SPDX-License-Identifier: Apache-2.0
"""Traces of control operations: `with span("compile"):` where something takes time. No libraries here.

Outside of a trace a span is one look at a context variable. Nothing on the way of packets or of store calls
has any.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeAlias

Attribute: TypeAlias = str | int | float | bool
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
MOST_SPANS = 64  # of one trace; a loop in an operation must not fill the memory
NO_ID = 0


@dataclass(slots=True)
class Span:
    """Times in ns since 1970. `parent` 0: none. `error`: what went wrong, empty if nothing did."""

    name: str
    trace_id: int
    span_id: int
    parent: int
    began: int
    ended: int = 0
    server: bool = False
    error: str = ""
    attributes: dict[str, Attribute] = field(default_factory=dict)


@dataclass(slots=True)
class Trace:
    """One operation under way: where its spans go, and the span that new ones belong to."""

    give: Callable[[Span], None]
    random: Callable[[int], bytes]
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

    __slots__ = ("_span", "_token", "_trace")

    def __init__(self, trace: Trace, span: Span) -> None:
        self._trace = trace
        self._span = span

    def __enter__(self) -> None:
        trace = self._trace
        inner = Trace(trace.give, trace.random, trace.root, self._span, trace.left)
        self._token = _current.set(inner)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)
        self._span.ended = time.time_ns()
        if kind is not None:
            # The kind alone: texts of errors may quote what somebody sent.
            self._span.error = kind.__name__
        self._trace.give(self._span)


def span(name: str) -> _Open | _Nothing:
    """A part of the operation under way; outside of a trace nothing. `name` must not come from input."""
    trace = _current.get()
    if trace is None or not trace.left[0]:
        return _NOTHING
    trace.left[0] -= 1
    made = Span(name, trace.root.trace_id, _id(trace.random, 8), trace.current.span_id, time.time_ns())
    return _Open(trace, made)


def note(name: str, value: Attribute) -> None:
    """Say something of the whole operation, as the id of its entry in the audit log."""
    trace = _current.get()
    if trace is not None:
        trace.root.attributes[name] = value


def trace_id() -> str | None:
    """Of the operation under way, as 32 hexadecimal digits."""
    trace = _current.get()
    return None if trace is None else f"{trace.root.trace_id:032x}"


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
def traced(
    name: str, traceparent: str | None, give: Callable[[Span], None], random: Callable[[int], bytes]
) -> Iterator[Span]:
    """A new trace, or the caller's if `traceparent` (W3C) says which. One that is malformed is ignored."""
    found = TRACEPARENT.fullmatch(traceparent) if traceparent else None
    trace, parent = (int(found[1], 16), int(found[2], 16)) if found else (NO_ID, NO_ID)
    if NO_ID in (trace, parent):  # the standard forbids zeros
        trace, parent = _id(random, 16), NO_ID
    root = Span(name, trace, _id(random, 8), parent, time.time_ns(), server=True)
    with _Open(Trace(give, random, root, root, [MOST_SPANS]), root):
        yield root


def _id(random: Callable[[int], bytes], size: int) -> int:
    return int.from_bytes(random(size), "big") or 1
