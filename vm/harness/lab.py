# SPDX-License-Identifier: Apache-2.0
"""An appliance, a client, and the links between them, as the lab's file tells them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import child, qemu
from harness.errors import VmError
from harness.host import Host
from harness.network import Link

BOOT_S = 240.0  # under emulation on a busy machine
TRY_S = 15.0


@dataclass(frozen=True)
class Lab:
    """What the tests have. `control` is QEMU's socket, if the appliance's power is in our hands."""

    release: str
    accel: str
    source: str
    results: Path
    appliance: Host
    client: Host
    links: Mapping[str, Link]
    control: Path | None = None
    console: Path | None = None

    def wait_ssh(self, timeout: float = BOOT_S, *, other_than: str = "") -> str:
        """Wait until the appliance takes commands; the id of its boot, which is not `other_than`."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                done = self.appliance.run(
                    "cat", "/proc/sys/kernel/random/boot_id", timeout=min(TRY_S, left + 1)
                )
            except VmError:
                done = None
            found = done.stdout.strip() if done is not None and done.returncode == 0 else ""
            if found and found != other_than:
                return found
            if found:
                self.hang_up()
            self.check()
            time.sleep(0.3)
        raise VmError(
            f"the appliance does not answer ssh within {timeout:.0f} s",
            self.last_words(),
            f"The console's log is {self.console}" if self.console else "",
        )

    def check(self) -> None:
        """Complain at once if the guest's kernel has given up."""
        if self.console is not None and qemu.panicked(child.read_tail(self.console)):
            raise VmError("the guest's kernel has given up", self.last_words())

    def last_words(self) -> str:
        """The end of the console's log."""
        return child.tail(child.read_tail(self.console)) if self.console else ""

    def hang_up(self) -> None:
        """End the standing ssh connection: behind a reboot it would wait for nobody."""
        prefix = list(self.appliance.prefix)
        if "ssh" in prefix:
            after = prefix.index("ssh") + 1
            ask = [*prefix[:after], "-O", "exit", *prefix[after:]]
            with suppress(subprocess.TimeoutExpired):
                subprocess.run(ask, capture_output=True, check=False, timeout=TRY_S)

    def reboot(self, *, cut: bool = False, timeout: float = BOOT_S) -> None:
        """Reboot the appliance, in order or (`cut`) as if its power had failed, and wait for it."""
        before = self.wait_ssh()
        if cut:
            if self.control is None:
                raise VmError("this lab cannot cut the appliance's power")
            self.hang_up()
            qemu.control(self.control, "system_reset")
        else:
            self.appliance.run("systemctl", "--no-block", "reboot")
            self.hang_up()
        self.wait_ssh(timeout, other_than=before)


def host(name: str, told: Mapping[str, Any]) -> Host:
    """A machine from its entry: {"ssh": [words]} or {"netns": name}."""
    if "ssh" in told:
        return Host(name, tuple(map(str, told["ssh"])), shell=True)  # noqa: S604 - a field, not a call
    return Host(name, ("ip", "netns", "exec", str(told["netns"])))


def read(path: Path) -> Lab:
    """The lab that a file tells."""
    try:
        told = json.loads(path.read_text())
        power = told.get("power") or {}
        return Lab(
            release=told["release"],
            accel=told["accel"],
            source=told["source"],
            results=Path(told["results"]),
            appliance=host("appliance", told["appliance"]),
            client=host("client", told["client"]),
            links={name: Link(**wire) for name, wire in told["links"].items()},
            control=Path(power["qmp"]) if "qmp" in power else None,
            console=Path(power["console"]) if "console" in power else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VmError(
            f"{path} does not tell of a lab", repr(error), "`vm/run --keep` writes such a file."
        ) from error
