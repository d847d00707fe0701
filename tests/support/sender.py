# SPDX-License-Identifier: Apache-2.0
"""vm/traffic.py on both sides of a wire of the lab: the client sends, the appliance answers and counts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Self

from harness.host import Host
from harness.lab import Lab
from harness.provision import CHECKOUT

# A command that also ends, and still reports, when its input does: with a connection that breaks, too.
ENDED_WITH_ITS_INPUT = """
exec 3<&0
"$@" </dev/null 3<&- & run=$!
{ read -r line <&3; kill -TERM "$run"; } & reader=$!
wait "$run"
kill "$reader"
"""
PROGRAM = "vm/traffic.py"
RUN_S, END_S = 120.0, 60.0


def program(host: Host, lab: Lab) -> list[str]:
    """How traffic.py is called on a machine of the lab; in a namespace of this host it has our Python."""
    return ["python3", f"{lab.source}/{PROGRAM}"] if host.shell else [sys.executable, str(CHECKOUT / PROGRAM)]


class Running:
    """traffic.py in the background; a context manager that ends it."""

    def __init__(self, host: Host, argv: Sequence[str]) -> None:
        self._process = host.start("sh", "-c", ENDED_WITH_ITS_INPUT, "run", *argv)

    def heard(self, word: str) -> None:
        """Wait until it says something on standard error."""
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        assert word in line, line + self._process.communicate(timeout=END_S)[1]

    def finished(self) -> dict[str, Any]:
        """Its report, once it has ended by itself."""
        self._process.wait(RUN_S)
        return self.stopped()

    def stopped(self) -> dict[str, Any]:
        """End it; its report."""
        output, errors = self._process.communicate(timeout=END_S)
        assert output, errors
        report: dict[str, Any] = json.loads(output)
        return report

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """What it says is shown where the test fails before it has asked for the report."""
        if self._process.returncode is None:
            try:
                told = self._process.communicate(timeout=END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                told = self._process.communicate()
            sys.stderr.write("".join(told))


class Sender:
    """The client's end of a wire."""

    def __init__(self, lab: Lab, nic: str) -> None:
        self._lab = lab
        self.wire = lab.links[nic]

    def _argv(self, profile: str, words: Sequence[str], version: int) -> list[str]:
        wire = self.wire
        to = wire.appliance4 if version == 4 else wire.appliance6
        where = ("--to", to, "--nic", wire.client_nic, "--mac", wire.appliance_mac)
        return [*program(self._lab.client, self._lab), profile, *where, "--json", "-", *words]

    def send(self, profile: str, *words: str, version: int = 4) -> dict[str, Any]:
        """Send to the end; the report."""
        done = self._lab.client.run(*self._argv(profile, words, version), timeout=RUN_S)
        assert done.returncode == 0, done.stderr + done.stdout
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def start(self, profile: str, *words: str, version: int = 4) -> Running:
        """Send in the background."""
        return Running(self._lab.client, self._argv(profile, words, version))


def serving(lab: Lab) -> Running:
    """The appliance answers marked UDP and counts what arrived."""
    run = Running(lab.appliance, [*program(lab.appliance, lab), "serve", "--json", "-", "--seconds", "600"])
    run.heard("listening")
    return run
