# SPDX-License-Identifier: Apache-2.0
"""The real daemon over the real kernel, in a network namespace of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.netns import End

READY_S = 60
BUCKETS = 8192
PORT = 7
SO_RCVBUFFORCE = 33  # more than net.core.rmem_max lets others have; Python has no name for it


class Appliance:
    """valkyried beside the veth end `nic0`; the other end is the world's. Starts, kills, asks."""

    def __init__(self, folder: Path, bpffs: Path, inside: End, outside: End) -> None:
        self.folder = folder
        self.bpffs = bpffs
        self.inside = inside
        self.outside = outside
        self.config = folder / "valkyrie.yaml"
        self.process: subprocess.Popen[str] | None = None
        self.said = ""  # on standard error, by the daemon that ended last
        self.sockets: list[socket.socket] = []
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told.settimeout(READY_S)
        self.told.bind(str(folder / "notify"))
        self.configure()

    def configure(self, **settings: Any) -> None:
        """Write the settings: those of this test and what is given."""
        own = {
            "state_dir": self.folder / "state",
            "socket": self.folder / "v.sock",
            "bpffs": self.bpffs,
        }
        merged = {name: str(path) for name, path in own.items()} | {"table": {"buckets": BUCKETS}} | settings
        self.config.write_text(json.dumps(merged))

    def launch(self) -> subprocess.Popen[str]:
        """Start the daemon, ready or not."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "NOTIFY_SOCKET": str(self.folder / "notify"),
        }
        command = [sys.executable, "-m", "valkyrie.control.daemon", "--config", str(self.config)]
        self.process = subprocess.Popen(
            self.inside.namespace.command(*command), env=environment, stderr=subprocess.PIPE, text=True
        )
        return self.process

    def start(self) -> float:
        """Start the daemon and wait until it says READY; seconds that took."""
        began = time.monotonic()
        process = self.launch()
        try:
            while self.told.recv(4096) != b"READY=1":
                pass
        except TimeoutError:
            process.kill()
            raise AssertionError(process.communicate()[1]) from None
        return time.monotonic() - began

    def kill(self) -> None:
        """The hard way."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """As systemd does; the exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        _, self.said = self.process.communicate(timeout=READY_S)
        status, self.process = self.process.returncode, None
        return status

    def ask(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("localhost", timeout=READY_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(READY_S)
        try:
            connection.sock.connect(str(self.folder / "v.sock"))
            connection.request(method, target, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def done(self, method: str, target: str, body: Any = None) -> Any:
        """The answer, which must be a success."""
        status, answer = self.ask(method, target, body)
        assert status == 200, answer
        return answer

    def events(self) -> Iterator[dict[str, Any]]:
        """Events from now on: the first next() does not wait, it joins."""
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(READY_S)
            stream.connect(str(self.folder / "v.sock"))
            stream.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            lines = stream.makefile("rb")
            while lines.readline() != b"\r\n":
                pass
            yield {}
            for line in lines:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def program(self, nic: str = "nic0") -> int:
        """The id of the XDP program on a NIC as the kernel tells it; 0: none."""
        shown = subprocess.run(
            self.inside.namespace.command("ip", "-json", "link", "show", nic), capture_output=True, check=True
        )
        return int(json.loads(shown.stdout)[0].get("xdp", {}).get("prog", {}).get("id", 0))

    def link(self, nic: str, *change: str) -> None:
        """Change a NIC of the policed side: up, down, name NAME."""
        subprocess.run(self.inside.namespace.command("ip", "link", "set", nic, *change), check=True)

    def receiver(self, port: int = PORT) -> socket.socket:
        """A UDP socket on the policed side, inside its namespace."""
        return self._opened(self.inside.namespace.call(_bound, "10.9.0.1", port))

    def sender(self) -> socket.socket:
        """A UDP socket of the world."""
        return self._opened(self.outside.namespace.call(_bound, "10.9.0.2", 0))

    def _opened(self, made: socket.socket) -> socket.socket:
        self.sockets.append(made)
        return made

    def close(self) -> None:
        if self.process is not None:
            self.kill()
        for made in (*self.sockets, self.told):
            made.close()


def _bound(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
    made.bind((address, port))
    made.settimeout(5)
    return made
