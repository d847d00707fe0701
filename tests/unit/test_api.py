# SPDX-License-Identifier: Apache-2.0
"""The API over its real socket: who may do what, what is refused, and how."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import pytest_asyncio

from support.fake_engine import FakeEngine
from valkyrie.control.api import observe
from valkyrie.control.api.listener import ACL_NAME, access_list, bind
from valkyrie.control.api.openapi import describe
from valkyrie.control.api.peer import CONNECTIONS_A_USER, Access, Peer, peer_of
from valkyrie.control.api.route import SMALL_BODY
from valkyrie.control.api.server import make_server
from valkyrie.control.api.table import ROUTES
from valkyrie.control.config import Settings
from valkyrie.control.dataplane import doctor
from valkyrie.control.errors import Conflict, InvalidInput, PermissionRefused, Unavailable
from valkyrie.control.service import limits
from valkyrie.control.service.clock import Clock
from valkyrie.control.service.service import Service
from valkyrie.control.state.store import State

WEB = {"match": "proto tcp dport 80,443", "key": "src", "rate": "1000/s", "burst": "2000"}
WRITERS, READERS, STRANGER = 54321, 54322, 54323


class Api:
    """A served API and a client without tricks."""

    def __init__(self, path: Path, service: Service, engine: FakeEngine) -> None:
        self.path = path
        self.service = service
        self.engine = engine

    async def call(
        self, method: str, target: str, body: Any = None, raw: bytes | None = None
    ) -> tuple[int, Any]:
        return await asyncio.to_thread(self.ask, method, target, body, raw)

    def ask(self, method: str, target: str, body: Any = None, raw: bytes | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        connection.sock.connect(str(self.path))
        try:
            payload = raw if raw is not None else None if body is None else json.dumps(body).encode()
            connection.request(method, target, payload)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


@pytest_asyncio.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    settings = Settings(state_dir=tmp_path / "state", socket=tmp_path / "v.sock")
    engine = FakeEngine("eth1")
    service = Service(settings, State.open(settings.database, bytes), engine, Clock())
    await service.start()
    listener = bind(settings.socket, write_group=WRITERS, read_group=READERS)
    server = make_server(listener, Access(WRITERS, READERS), service)
    started = asyncio.Event()
    serving = asyncio.ensure_future(server.run_until_told(started.set))
    await started.wait()
    yield Api(settings.socket, service, engine)
    service.hub.close()
    server.should_exit = True
    await serving
    await service.close()


async def test_a_limit_goes_in_and_comes_out(api: Api) -> None:
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


async def test_overrides_are_added_listed_and_deleted(api: Api) -> None:
    await api.call("PUT", "/v1/limits/web", WEB)
    entries = [{"prefix": "203.0.113.0/24", "rate": "5000/s"}, {"prefix": "2001:db8::/32", "rate": "7/s"}]
    assert (await api.call("PUT", "/v1/limits/web/overrides", {"overrides": entries}))[0] == 200
    _, listed = await api.call("GET", "/v1/limits/web/overrides")
    assert [one["prefix"] for one in listed["overrides"]] == ["2001:db8::/32", "203.0.113.0/24"]
    assert (await api.call("DELETE", "/v1/limits/web/overrides?prefix=203.0.113.0/24"))[0] == 200
    assert (await api.call("DELETE", "/v1/limits/web/overrides?prefix=203.0.113.0/24"))[0] == 404
    assert (await api.call("GET", "/v1/limits/web"))[1]["overrides"] == 1


async def test_a_bucket_without_its_key_is_asked_for(api: Api) -> None:
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
    api: Api, method: str, target: str, body: Any, where: str
) -> None:
    published = len(api.engine.published)
    status, answer = await api.call(method, target, body)
    assert status == 400
    assert answer["error"]["code"] == "invalid"
    assert answer["error"]["where"] == where
    assert answer["error"]["what"]
    assert len(api.engine.published) == published


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"key":' + b"[" * 10_000, b'"x"'])
async def test_bodies_that_are_no_json_object_are_refused(api: Api, raw: bytes) -> None:
    status, answer = await api.call("PUT", "/v1/limits/web", raw=raw)
    assert (status, answer["error"]["code"]) == (400, "invalid")


async def test_a_body_over_the_bound_is_refused(api: Api) -> None:
    status, answer = await api.call("PUT", "/v1/ban", raw=b" " * (SMALL_BODY + 1))
    assert status == 400
    assert "larger than" in answer["error"]["what"]


@pytest.mark.parametrize(
    ("module", "method", "target"),
    [(limits, "PUT", "/v1/limits/many"), (observe, "POST", "/v1/observe")],
)
async def test_a_match_is_read_in_a_thread_for_it_may_have_very_many_prefixes(
    api: Api, monkeypatch: pytest.MonkeyPatch, module: ModuleType, method: str, target: str
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


async def test_paths_and_methods_that_are_not_there_are_named(api: Api) -> None:
    assert (await api.call("GET", "/v1/limit"))[0] == 404
    assert (await api.call("PUT", "/v1/limits/", {}))[0] == 404
    status, answer = await api.call("PATCH", "/v1/limits")
    assert status == 405
    assert "PATCH" in answer["error"]["what"]


async def test_the_doctor_is_told_whether_a_limit_matches_vlans(
    api: Api, monkeypatch: pytest.MonkeyPatch
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


async def test_garbage_on_the_socket_harms_nobody(api: Api) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(api.path))
        raw.sendall(b"\x16\x03\x01" + os.urandom(2000) + b"\r\n\r\n")
        assert (await api.call("GET", "/v1/limits"))[0] == 200


async def test_attach_confirm_detach(api: Api) -> None:
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
    api.engine.links["eth1"] = "foreign"
    status, answer = await api.call("POST", "/v1/nics/eth1/attach", {})
    assert (status, answer["error"]["code"]) == (409, "foreign")


async def test_events_arrive_as_they_happen_and_the_stream_ends_with_the_daemon(api: Api) -> None:
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


async def test_every_route_has_an_answer_and_a_description(api: Api) -> None:
    status, document = await api.call("GET", "/v1/openapi.json")
    assert status == 200
    assert document == json.loads(json.dumps(describe(ROUTES, document["info"]["version"])))
    assert document["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert described == {(route.method, route.path) for route in ROUTES}
    assert "for" in document["components"]["schemas"]["GuardBody"]["properties"]


def as_user(path: Path, group: int, method: str, target: str, body: str = "{}") -> tuple[int, str]:
    """The status and the error's code that a process of this group gets; 0 when it cannot connect."""
    code = (
        "import http.client,json,os,socket,sys\n"
        "path, group, method, target, body = sys.argv[1:]\n"
        "os.setgroups([int(group)]); os.setgid(65534); os.setuid(65534)\n"
        "c = http.client.HTTPConnection('x'); c.sock = socket.socket(socket.AF_UNIX)\n"
        "try: c.sock.connect(path)\n"
        "except PermissionError: print(json.dumps([0, 'connect'])); sys.exit()\n"
        "c.request(method, target, body); a = c.getresponse(); b = json.loads(a.read())\n"
        "print(json.dumps([a.status, b.get('error', {}).get('code', '')]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(group), method, target, body],
        capture_output=True, text=True, check=True, timeout=20,
    )  # fmt: skip
    status, word = json.loads(done.stdout)
    return status, word


@pytest.fixture
def open_folders(tmp_path: Path) -> None:
    """Let other users reach the socket through the folders that pytest made for root alone."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o711)


@pytest.mark.usefixtures("open_folders")
async def test_the_kernel_and_the_daemon_tell_writers_readers_and_strangers_apart(api: Api) -> None:
    assert stat.S_IMODE(api.path.stat().st_mode) == 0o660
    assert api.path.stat().st_gid == WRITERS

    async def tried(group: int, method: str, target: str, body: str = "{}") -> tuple[int, str]:
        return await asyncio.to_thread(as_user, api.path, group, method, target, body)

    assert await tried(WRITERS, "GET", "/v1/limits") == (200, "")
    assert await tried(WRITERS, "DELETE", "/v1/limits/web") == (404, "not-found")
    assert await tried(READERS, "GET", "/v1/limits") == (200, "")
    assert await tried(READERS, "DELETE", "/v1/limits/web") == (403, "permission")
    assert await tried(READERS, "PUT", "/v1/limits/web") == (403, "permission")
    assert await tried(READERS, "POST", "/v1/diff", '{"document": {}}') == (200, "")
    assert await tried(READERS, "POST", "/v1/apply", '{"document": {}}') == (403, "permission")
    assert await tried(STRANGER, "GET", "/v1/limits") == (0, "connect")


@pytest.mark.usefixtures("open_folders")
async def test_a_reader_that_takes_every_connection_keeps_nobody_else_out(api: Api) -> None:
    code = (
        "import os,socket,sys\n"
        "os.setgroups([int(sys.argv[2])]); os.setgid(65534); os.setuid(65534)\n"
        "held = [socket.socket(socket.AF_UNIX) for _ in range(300)]\n"
        "for one in held: one.connect(sys.argv[1])\n"
        "closed = 0\n"
        "for one in held[64:]:\n"
        "    one.settimeout(10)\n"
        "    closed += one.recv(1) == b''\n"
        "print(closed, flush=True)\n"
        "sys.stdin.read()\n"
    )
    greedy = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(api.path), str(READERS),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert greedy.stdin is not None
    assert greedy.stdout is not None
    try:
        assert int(await asyncio.wait_for(greedy.stdout.readline(), 20)) == 300 - CONNECTIONS_A_USER
        assert (await api.call("GET", "/v1/limits"))[0] == 200
    finally:
        greedy.stdin.close()
        await greedy.wait()


class Watched(asyncio.Lock):
    """Tells when somebody holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = asyncio.Event()

    async def acquire(self) -> Literal[True]:
        await super().acquire()
        self.taken.set()
        return True


@pytest.mark.usefixtures("open_folders")
async def test_of_readers_one_document_at_a_time_is_read_and_no_writer_waits_for_it(api: Api) -> None:
    api.service.large_looks = watched = Watched()
    code = (
        "import os,socket,sys\n"
        "os.setgroups([int(sys.argv[2])]); os.setgid(65534); os.setuid(65534)\n"
        "slow = socket.socket(socket.AF_UNIX); slow.connect(sys.argv[1])\n"
        "slow.sendall(b'POST /v1/diff HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 99\\r\\n\\r\\n{')\n"
        "sys.stdin.read()\n"
    )
    slow = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(api.path), str(READERS), stdin=asyncio.subprocess.PIPE
    )
    assert slow.stdin is not None
    try:
        await asyncio.wait_for(watched.taken.wait(), 20)
        assert await api.call("POST", "/v1/diff", {"document": {}}) == (200, {"diff": [], "applied": False})
    finally:
        slow.stdin.close()
        await slow.wait()
    asked = ("POST", "/v1/diff", '{"document": {}}')
    assert await asyncio.to_thread(as_user, api.path, READERS, *asked) == (200, "")


@pytest.mark.parametrize("path", [route.path for route in ROUTES if route.method != "GET"])
def test_all_that_is_no_get_needs_the_right_to_write_but_explaining_and_comparing(path: str) -> None:
    for route in ROUTES:
        if route.path == path and route.method != "GET":
            assert route.writes == (path not in ("/v1/explain", "/v1/diff"))


def test_a_stranger_is_refused_though_it_got_connected() -> None:
    access = Access(WRITERS, READERS)
    for write in (False, True):
        with pytest.raises(PermissionRefused):
            access.check(Peer(1, 65534, frozenset((STRANGER,))), write=write)
        with pytest.raises(PermissionRefused):
            access.check(None, write=write)
        with pytest.raises(PermissionRefused):
            Access(None, None).check(Peer(1, 65534, frozenset()), write=write)


def test_the_peer_is_who_the_kernel_says() -> None:
    left, right = socket.socketpair()
    with left, right:
        peer = peer_of(left)
    assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())
    assert peer.groups >= {os.getgid()}


def test_a_stale_socket_is_replaced_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "v.sock"
    bind(path, write_group=None, read_group=None).close()
    second = bind(path, write_group=None, read_group=None)
    second.listen()
    with pytest.raises(Conflict):
        bind(path, write_group=None, read_group=None)
    second.close()


def test_a_file_in_the_place_of_the_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "v.sock"
    path.write_text("precious")
    with pytest.raises(Conflict):
        bind(path, write_group=None, read_group=None)
    assert path.read_text() == "precious"


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        bind(tmp_path / ("x" * 120), write_group=None, read_group=None)


def test_the_access_list_is_what_the_kernel_keeps(tmp_path: Path) -> None:
    path = tmp_path / "v.sock"
    bind(path, write_group=WRITERS, read_group=READERS).close()
    assert os.getxattr(path, ACL_NAME) == access_list(READERS)
    assert struct.unpack("<I", access_list(READERS)[:4]) == (2,)
