# SPDX-License-Identifier: Apache-2.0
"""A real mosquitto with a folder and a free port of its own, which tests stop and start again."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.certs import Certs
from support.servers import DEADLINE, free_port
from valkyrie.control.lab.netns import Namespace

PROGRAM = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PASSWORD_PROGRAM = shutil.which("mosquitto_passwd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@dataclass
class Broker:
    folder: Path
    port: int
    lines: Sequence[str]
    namespace: Namespace | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start, and wait until it listens."""
        assert PROGRAM is not None, "no mosquitto here: apt-get install mosquitto"
        config = self.folder / "conf"
        user = [] if os.geteuid() else ["user root"]
        common = [
            f"listener {self.port} 127.0.0.1",
            *user,
            "persistence true",
            f"persistence_location {self.folder}/",
        ]
        config.write_text("\n".join([*common, "autosave_interval 1", *self.lines, ""]))
        with (self.folder / "log").open("ab") as log:
            command = ["setpriv", "--pdeathsig", "KILL", PROGRAM, "-c", str(config), "-v"]
            if self.namespace is not None:
                command = self.namespace.command(*command)
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + DEADLINE
        while True:
            if self._listens():
                return
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"mosquitto does not listen: {(self.folder / 'log').read_text()[-500:]}")
            time.sleep(0.01)

    def _listens(self) -> bool:
        def ask() -> bool:
            with socket.socket() as probe:
                return not probe.connect_ex(("127.0.0.1", self.port))

        return ask() if self.namespace is None else self.namespace.call(ask)

    def stop(self) -> None:
        """Orderly, so that it keeps what is retained. Again: nothing."""
        process, self.process = self.process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(DEADLINE)


@contextlib.contextmanager
def broker(
    *lines: str,
    certs: Certs | None = None,
    ask_certificate: bool = False,
    user: tuple[str, str] | None = None,
    namespace: Namespace | None = None,
) -> Iterator[Broker]:
    """A running broker, on the loopback of a namespace if one is given; `user` is a name and password
    without which nobody gets in.
    """
    with tempfile.TemporaryDirectory(prefix="vkm-", ignore_cleanup_errors=True) as folder:
        more = list(lines)
        if certs is not None:
            more += [f"cafile {certs.ca}", f"certfile {certs.server}", f"keyfile {certs.server_key}"]
            more += ["require_certificate true", "use_identity_as_username true"] if ask_certificate else []
        if user is not None:
            assert PASSWORD_PROGRAM is not None
            passwords = Path(folder) / "passwords"
            subprocess.run(
                [PASSWORD_PROGRAM, "-b", "-c", str(passwords), *user], check=True, capture_output=True
            )
            more += [f"password_file {passwords}", "allow_anonymous false"]
        else:
            more += ["allow_anonymous true"]
        made = Broker(Path(folder), free_port(), more, namespace)
        try:
            made.start()
            yield made
        finally:
            made.stop()
