# SPDX-License-Identifier: Apache-2.0
"""Who may do what by the API, by the kernel's word, and the socket that it is asked by."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio

from support.served import Served, served
from valkyrie.control.api.listener import ACL_NAME, access_list, bind
from valkyrie.control.api.peer import CONNECTIONS_A_USER, Access, Peer, peer_of
from valkyrie.control.api.table import ROUTES
from valkyrie.control.config import Settings
from valkyrie.control.errors import Conflict, PermissionRefused, Unavailable

WEB = {"match": "proto tcp dport 80,443", "key": "src", "rate": "1000/s", "burst": "2000"}
WRITERS, READERS, STRANGER = 54321, 54322, 54323


@pytest_asyncio.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    settings = Settings(state_dir=tmp_path / "state", socket=tmp_path / "v.sock")
    async with served(settings, Access(WRITERS, READERS)) as made:
        yield made


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
async def test_the_kernel_and_the_daemon_tell_writers_readers_and_strangers_apart(api: Served) -> None:
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
async def test_a_reader_that_takes_every_connection_keeps_nobody_else_out(api: Served) -> None:
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
async def test_of_readers_one_document_at_a_time_is_read_and_no_writer_waits_for_it(api: Served) -> None:
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
