# SPDX-License-Identifier: Apache-2.0
"""Logs for people and programs, spans that cost nothing when off, and the command line."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

from support.workbench import ADMIN, Bench
from valkyrie.control.cli.telemetry import body, view
from valkyrie.control.errors import InvalidInput
from valkyrie.control.telemetry import logs
from valkyrie.control.telemetry.spans import MOST_SPANS, note, resumed, span, under_way
from valkyrie.control.telemetry.tracing import Tracing


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What a set-up log writes; the loggers are as before afterwards."""
    root = logging.getLogger()
    before = (root.level, list(root.handlers), [logging.getLogger(name).level for name in logs.OWN])
    yield io.StringIO()
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for name, level in zip(logs.OWN, before[2], strict=True):
        logging.getLogger(name).setLevel(level)


def random(size: int) -> bytes:
    return bytes([7]) * size


def traced(parent: str | None, give: Callable[[ReadableSpan], None]) -> AbstractContextManager[object]:
    return Tracing(give, random, Resource({})).operation("root", parent)


def test_json_lines_hold_what_programs_need(stream: io.StringIO) -> None:
    logs.set_up("info", "json", stream)
    try:
        int("bad\nthing")
    except ValueError:
        logging.getLogger("valkyrie.control.x").exception("a %s", "line\nmore")
    with traced(None, lambda one: None):
        logging.getLogger("valkyried").warning("inside")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["level"], first["logger"], first["message"]) == (
        "error",
        "valkyrie.control.x",
        "a line\nmore",
    )
    assert "ValueError: invalid" in first["error"]
    assert first["time"].endswith("+00:00")
    assert second["trace_id"] == "07" * 16


def test_lines_for_people_are_as_they_were(stream: io.StringIO) -> None:
    logs.set_up("info", "human", stream)
    logging.getLogger("valkyried").info("enforcing")
    assert stream.getvalue() == "INFO valkyried: enforcing\n"


def test_the_level_changes_while_running_and_libraries_stay_quiet(stream: io.StringIO) -> None:
    logs.set_up("warning", "human", stream)
    own, other = logging.getLogger("valkyrie.control.x"), logging.getLogger("library")
    own.info("no")
    logs.set_level("debug")
    own.debug("yes")
    other.debug("what it sends")
    assert stream.getvalue() == "DEBUG valkyrie.control.x: yes\n"
    assert logs.level() == "debug"
    with pytest.raises(InvalidInput):
        logs.set_level("loud")


async def test_the_level_is_set_by_the_api_and_not_kept(bench: Bench, stream: io.StringIO) -> None:
    logs.set_up("info", "human", stream)
    answer = await bench.service.telemetry.change(ADMIN, {"log": "debug"})
    assert (answer["log"], answer["set"]) == ("debug", [])
    assert not (bench.folder / "telemetry.json").exists()
    assert (await bench.service.views.audit(1))["audit"][0]["action"] == "telemetry.set"
    assert (await bench.service.telemetry.reset(ADMIN))["log"] == "info"


async def test_no_secret_is_logged_at_the_lowest_level(bench: Bench, stream: io.StringIO) -> None:
    logs.set_up("debug", "json", stream)
    await bench.service.credentials.put(ADMIN, "otel", b"authorization=wordy-secret")
    await bench.service.telemetry.change(ADMIN, {"headers_credential": "otel", "enabled": True})
    await bench.service.credentials.put(ADMIN, "otel", b"wordy-secret without equals")
    with pytest.raises(InvalidInput):
        await bench.service.telemetry.change(ADMIN, {"interval_seconds": 5})
    assert "wordy" not in stream.getvalue()
    assert "wordy" not in json.dumps(await bench.service.views.audit(10))
    assert b"wordy" not in (bench.folder / "telemetry.json").read_bytes()


def test_a_span_outside_of_a_trace_takes_less_than_a_microsecond() -> None:
    def once() -> float:
        began = time.perf_counter()
        for _ in range(10_000):
            with span("compile"):
                pass
        return (time.perf_counter() - began) / 10_000

    assert min(once() for _ in range(5)) < 1e-6


def test_spans_nest_fail_and_are_bounded() -> None:
    given: list[ReadableSpan] = []

    def operation() -> None:
        with traced(None, given.append):
            note("valkyrie.audit.id", 7)
            for _ in range(MOST_SPANS + 9):
                with span("part"):
                    pass
            raise KeyError("what somebody sent")

    with pytest.raises(KeyError):
        operation()
    assert len(given) == MOST_SPANS + 1
    root = given[-1]
    assert (root.name, root.status.description) == ("root", "KeyError")
    assert (root.attributes, root.events) == ({"valkyrie.audit.id": 7}, ())
    assert all(one.parent == root.context for one in given[:-1])
    assert all((one.end_time or 0) >= (one.start_time or 1) for one in given)
    assert under_way() is None


def test_work_that_goes_on_later_belongs_to_its_operation() -> None:
    given: list[ReadableSpan] = []
    with traced(None, given.append):
        trace = under_way()
    with resumed(trace, "store.policy"):
        pass
    with resumed(None, "store.policy"):
        pass
    assert [one.name for one in given] == ["root", "store.policy"]
    assert given[1].parent == given[0].context


@pytest.mark.parametrize(
    "parent",
    ["", "x", f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'0' * 16}-01", f"00-{'G' * 32}-{'1' * 16}-01"],
)
def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(parent: str) -> None:
    given: list[ReadableSpan] = []
    with traced(parent, given.append):
        pass
    assert (given[0].context.trace_id, given[0].parent) == (int("07" * 16, 16), None)


def test_the_command_line_says_none_to_take_a_setting_away() -> None:
    assert body({"ca": "none", "endpoint": "none", "traces": None}) == {"ca": "", "endpoint": "none"}


async def test_the_view_has_what_matters(bench: Bench) -> None:
    told: dict[str, Any] = {**bench.service.telemetry.status(), "state": "failing", "problem": "away"}
    (facts,) = view(told)
    pairs = dict(facts.pairs)  # type: ignore[union-attr]
    assert (pairs["export"], pairs["problem"], pairs["prometheus"]) == (
        "failing", "away", "GET /metrics on the API's socket",
    )  # fmt: skip
