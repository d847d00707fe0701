# SPDX-License-Identifier: Apache-2.0
"""The real daemon in a network namespace, with private state, and the real command line to it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from valkyrie.control.cli.client import Client
from valkyrie.control.errors import Unavailable
from valkyrie.control.lab.netns import Namespace

SETTINGS = """\
state_dir: {place}/state
socket: {place}/valkyried.sock
bpffs: {place}/bpf
group: root
read_group: root
log: warning
"""
FEW_EVENTS = "events: {sample: 64, rate: 100}\n"
START_S, END_S = 30.0, 10.0


class Daemon:
    """valkyried, running; a context manager that ends it. `place` is as of private_place(), `more` are lines
    of its settings.
    """

    def __init__(self, namespace: Namespace, place: Path, more: str = FEW_EVENTS) -> None:
        self._namespace = namespace
        self._socket = place / "valkyried.sock"
        self._log = place / "valkyried.log"
        settings = place / "valkyrie.yaml"
        settings.write_text(SETTINGS.format(place=place) + more)
        self._environment = {
            **os.environ,
            "VALKYRIE_CONFIG": str(settings),
            "VALKYRIE_SOCKET": str(self._socket),
        }
        self.client = Client(str(self._socket))
        started = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                namespace.command(sys.executable, "-m", "valkyrie.control.daemon"),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the lab, which then ends the daemon
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.monotonic() - started

    def _wait(self) -> None:
        """Until it answers. Raises Unavailable with what it said, if it ends or takes too long."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._socket.exists():
                try:
                    self.client.get("/v1/status")
                except Unavailable:
                    pass
                else:
                    return
            time.sleep(0.02)
        said = self._log.read_text(errors="replace").strip()
        raise Unavailable("valkyried did not start", said or f"it said nothing for {START_S:.0f} s")

    def ctl(self, *arguments: str) -> str:
        """What `valkyrie-ctl ARGUMENTS` prints. Raises Unavailable with its complaint if it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "valkyrie.control.cli.main", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Unavailable(f"valkyrie-ctl {' '.join(arguments)} failed", done.stderr.strip())
        return done.stdout

    def close(self) -> None:
        """Ask it to end, then make it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
