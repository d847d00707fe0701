# SPDX-License-Identifier: Apache-2.0
"""The API over its real socket: what it does, what is refused, and how."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_asyncio

from support.fake_engine import FakeEngine
from support.served import Served, served
from valkyrie.control.api import observe, route
from valkyrie.control.api.openapi import describe
from valkyrie.control.api.route import SMALL_BODY
from valkyrie.control.api.table import ROUTES
from valkyrie.control.config import Settings
from valkyrie.control.dataplane import doctor
from valkyrie.control.errors import InvalidInput
from valkyrie.control.service import limits

WEB = {"match": "proto tcp dport 80,443", "key": "src", "rate": "1000/s", "burst": "2000"}
WRITERS, READERS, STRANGER = 54321, 54322, 54323


@pytest_asyncio.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    settings = Settings(state_dir=tmp_path / "state", socket=tmp_path / "v.sock")
    async with served(settings) as made:
        yield made


def engine_of(api: Served) -> FakeEngine:
    engine = api.service.core.engine
    assert isinstance(engine, FakeEngine)
    return engine


async def test_a_limit_goes_in_and_comes_out(api: Served) -> None:
    status, made = await api.call("PUT", "/v1/limits/web", WEB)
    assert status == 200
    assert made["rate"] == "1000/s"
    assert made["overrides"] == 0
    assert set(made["counters"]) >= {"matched", "passed", "dropped", "shadow_dropped"}
    assert await api.call("GET", "/v1/limits/web") == (200, made)
    assert await api.call("GET", "/v1/limits") == (200, {"limits": [made]})
    assert (await api.call("DELETE", "/v1/limits/web"))[0] == 200
    status, answer = await api.call("GET", "/v1/limits/web")
    assert status == 404
    assert answer["error"]["code"] == "not-found"


async def test_overrides_are_added_listed_and_deleted(api: Served) -> None:
    await api.call("PUT", "/v1/limits/web", WEB)
    entries = [{"prefix": "203.0.113.0/24", "rate": "5000/s"}, {"prefix": "2001:db8::/32", "rate": "7/s"}]
    assert (await api.call("PUT", "/v1/limits/web/overrides", {"overrides": entries}))[0] == 200
    _, listed = await api.call("GET", "/v1/limits/web/overrides")
    assert [one["prefix"] for one in listed["overrides"]] == ["2001:db8::/32", "203.0.113.0/24"]
    assert (await api.call("DELETE", "/v1/limits/web/overrides?prefix=203.0.113.0/24"))[0] == 200
    assert (await api.call("DELETE", "/v1/limits/web/overrides?prefix=203.0.113.0/24"))[0] == 404
    assert (await api.call("GET", "/v1/limits/web"))[1]["overrides"] == 1


async def test_a_bucket_without_its_key_is_asked_for(api: Served) -> None:
    await api.call("PUT", "/v1/limits/web", WEB)
    status, answer = await api.call("GET", "/v1/buckets/web")
    assert (status, answer["error"]["where"]) == (400, "key")
    await api.call("PUT", "/v1/limits/all", {"key": "global", "rate": "5/s"})
    assert (await api.call("GET", "/v1/buckets/all"))[0] == 404


@pytest.mark.parametrize(
    ("method", "target", "body", "where"),
    [
        ("PUT", "/v1/limits/web", {**WEB, "kez": 1}, "kez"),
        ("PUT", "/v1/limits/web", {"rate": "1/s"}, "key"),
        ("PUT", "/v1/limits/web", {**WEB, "rate": "many"}, "rate"),
        ("PUT", "/v1/limits/web", {**WEB, "rate": 7}, "rate"),
        ("PUT", "/v1/limits/web", {**WEB, "key": "source"}, "key"),
        ("PUT", "/v1/limits/web", {**WEB, "match": "protocol tcp"}, "match"),
        ("PUT", "/v1/limits/UPPER", WEB, "name"),
        ("PUT", "/v1/ban", {"prefix": "10.0.0.1/8"}, "prefix"),
        ("POST", "/v1/apply", {"document": {"limits": [{"name": "web"}]}}, "limits[0].rate"),
        ("POST", "/v1/diff", {"document": {"limits": [{"name": "web"}]}}, "limits[0].rate"),
        ("GET", "/v1/buckets?count=many", None, "count"),
        ("GET", "/v1/buckets?cuont=7", None, "cuont"),
        ("DELETE", "/v1/ban", None, "prefix"),
        ("POST", "/v1/nics/eth1/attach", {"mode": "fast"}, "mode"),
    ],
)
async def test_wrong_input_is_refused_naming_the_field(
    api: Served, method: str, target: str, body: Any, where: str
) -> None:
    engine = engine_of(api)
    published = len(engine.published)
    status, answer = await api.call(method, target, body)
    assert status == 400
    assert answer["error"]["code"] == "invalid"
    assert answer["error"]["where"] == where
    assert answer["error"]["what"]
    assert len(engine.published) == published


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"key":' + b"[" * 10_000, b'"x"'])
async def test_bodies_that_are_no_json_object_are_refused(api: Served, raw: bytes) -> None:
    status, answer = await api.call("PUT", "/v1/limits/web", raw=raw)
    assert (status, answer["error"]["code"]) == (400, "invalid")


async def test_a_body_over_the_bound_is_refused(api: Served) -> None:
    status, answer = await api.call("PUT", "/v1/ban", raw=b" " * (SMALL_BODY + 1))
    assert status == 400
    assert "larger than" in answer["error"]["what"]


@pytest.mark.parametrize(
    "listed",
    [b"{}," * 500_000 + b"{}", b"[]," * 500_000 + b"[]", b"0," * 5_000_000 + b"0"],
    ids=["{}", "[]", "0"],
)
async def test_a_body_of_more_values_than_any_policy_has_is_refused_before_it_takes_memory(
    api: Served, monkeypatch: pytest.MonkeyPatch, listed: bytes
) -> None:
    monkeypatch.delattr(route, "parse_body")
    status, answer = await api.call("POST", "/v1/diff", raw=b'{"document": {"limits": [' + listed + b"]}}")
    assert (status, answer["error"]["what"]) == (400, "the body holds too many values")


@pytest.mark.parametrize(
    ("module", "method", "target"),
    [(limits, "PUT", "/v1/limits/many"), (observe, "POST", "/v1/observe")],
)
async def test_a_match_is_read_in_a_thread_for_it_may_have_very_many_prefixes(
    api: Served, monkeypatch: pytest.MonkeyPatch, module: ModuleType, method: str, target: str
) -> None:
    read_by: list[threading.Thread] = []

    def checked(*given: Any) -> Any:
        read_by.append(threading.current_thread())
        raise InvalidInput("seen", "enough")

    monkeypatch.setattr(module, "checked", checked)
    assert (await api.call(method, target, {"key": "src", **({"rate": "1/s"} if method == "PUT" else {})}))[
        0
    ] == 400
    assert read_by != [threading.current_thread()]
    assert len(read_by) == 1


async def test_paths_and_methods_that_are_not_there_are_named(api: Served) -> None:
    assert (await api.call("GET", "/v1/limit"))[0] == 404
    assert (await api.call("PUT", "/v1/limits/", {}))[0] == 404
    status, answer = await api.call("PATCH", "/v1/limits")
    assert status == 405
    assert "PATCH" in answer["error"]["what"]


async def test_the_doctor_is_told_whether_a_limit_matches_vlans(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def examine(_: Path, *, vlans: bool) -> list[doctor.Check]:
        asked.append(vlans)
        return []

    monkeypatch.setattr(doctor, "examine", examine)
    for match in ("proto tcp", "vlan 10", "vlan none"):
        await api.call("PUT", "/v1/limits/web", {**WEB, "match": match})
        assert await api.call("GET", "/v1/doctor") == (200, {"checks": []})
    assert asked == [False, True, True]


async def test_garbage_on_the_socket_harms_nobody(api: Served) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(api.path))
        raw.sendall(b"\x16\x03\x01" + os.urandom(2000) + b"\r\n\r\n")
        assert (await api.call("GET", "/v1/limits"))[0] == 200


async def test_attach_confirm_detach(api: Served) -> None:
    status, shown = await api.call(
        "POST", "/v1/nics/eth1/attach", {"confirm": "60s", "protect": ["192.0.2.9"]}
    )
    assert status == 200
    assert shown["mode"] == "native"
    assert 0 < shown["confirm_left_s"] <= 60
    assert (await api.call("POST", "/v1/nics/eth1/confirm"))[1]["confirm_left_s"] is None
    _, report = await api.call("GET", "/v1/status")
    assert report["enforcing"]
    assert report["protect"] == ["192.0.2.9/32"]
    assert (await api.call("DELETE", "/v1/nics/eth1"))[0] == 200
    assert (await api.call("DELETE", "/v1/nics/eth1"))[0] == 404
    engine = engine_of(api)
    engine.links["eth1"] = "foreign"
    status, answer = await api.call("POST", "/v1/nics/eth1/attach", {})
    assert (status, answer["error"]["code"]) == (409, "foreign")


async def test_events_arrive_as_they_happen_and_the_stream_ends_with_the_daemon(api: Served) -> None:
    reader, writer = await asyncio.open_unix_connection(str(api.path))
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"text/event-stream" in head
    await api.call("POST", "/v1/nics/eth1/attach", {})
    event = b""
    while not event.startswith(b"data: "):
        event = await reader.readline()
    told = json.loads(event[6:])
    assert told["kind"] == "attach"
    assert "eth1" in told["what"]
    api.service.hub.close()
    await reader.read()
    writer.close()


async def test_every_route_has_an_answer_and_a_description(api: Served) -> None:
    status, document = await api.call("GET", "/v1/openapi.json")
    assert status == 200
    assert document == json.loads(json.dumps(describe(ROUTES, document["info"]["version"])))
    assert document["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert described == {(route.method, route.path) for route in ROUTES}
    assert "for" in document["components"]["schemas"]["GuardBody"]["properties"]
