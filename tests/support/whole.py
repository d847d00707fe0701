# SPDX-License-Identifier: Apache-2.0
"""The appliance of a lab, a whole machine: its API, its limits' counters, its NICs, its service."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.host import Host
from harness.lab import Lab

SOCKET = "/run/valkyrie/valkyried.sock"
UNIT = "valkyried.service"
READY_S = 240.0  # a start that compiles, under emulation
SETTLE_S = 30.0  # on a busy host
XDP_MODES = {1: "native", 2: "generic"}  # as the kernel numbers them
QUEUE = re.compile(r"^rx(?:_queue_)?(\d+)_(xdp_packets|xdp_drops)$")  # before and since Linux 6.10
NOTHING: dict[str, list[Any]] = {"limits": [], "exempt": [], "ban": []}


def until(holds: Callable[[], bool], what: str, seconds: float = SETTLE_S) -> None:
    """Wait until something holds; `what` is said if it does not come to."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


@dataclass(frozen=True)
class Whole:
    """Asks over ssh; every answer must be a success unless its status is asked for."""

    lab: Lab

    @property
    def host(self) -> Host:
        return self.lab.appliance

    def ask(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        """One request of the API: status and answer; 0 if the daemon is away."""
        words = ["curl", "-sS", "--max-time", "60", "--unix-socket", SOCKET, "-X", method]
        words += ["-w", "\n%{http_code}", f"http://localhost{target}"]
        words += [] if body is None else ["--data-binary", "@-"]
        done = self.host.run(*words, input="" if body is None else json.dumps(body))
        text, _, status = done.stdout.rpartition("\n")
        return int(status or 0), json.loads(text) if text else None

    def done(self, method: str, target: str, body: Any = None) -> Any:
        status, answer = self.ask(method, target, body)
        assert status == 200, answer
        return answer

    def status(self) -> Any:
        return self.done("GET", "/v1/status")

    def wait(self) -> Any:
        """Until the daemon answers; its status."""
        deadline = time.monotonic() + READY_S
        while (found := self.ask("GET", "/v1/status"))[0] != 200:
            assert time.monotonic() < deadline, f"not within {READY_S:.0f} s: {UNIT} answers"
            time.sleep(0.1)
        return found[1]

    def clear(self) -> None:
        """Nothing attached, no limits, exempts or bans."""
        for nic in self.wait()["nics"]:
            self.done("DELETE", f"/v1/nics/{nic['nic']}")
        self.done("POST", "/v1/apply", {"document": NOTHING})

    def attach(self, nic: str, mode: str = "native") -> None:
        """Attach, in this mode and no other."""
        assert self.done("POST", f"/v1/nics/{nic}/attach", {"mode": mode})["mode"] == mode
        assert self.program(nic)[0] == mode

    def limit(self, name: str, **body: str) -> None:
        self.done("PUT", f"/v1/limits/{name}", body)

    def counters(self, name: str) -> dict[str, int]:
        found: dict[str, int] = self.done("GET", f"/v1/limits/{name}")["counters"]
        return found

    def settled(self, name: str, matched: int) -> dict[str, int]:
        """A limit's counters once it has met so many packets; later ones count too."""
        until(lambda: self.counters(name)["matched"] >= matched, f"{name} meets {matched} packets")
        return self.counters(name)

    def reasons(self) -> dict[str, int]:
        """Packets by the reason of their verdict."""
        return {name: told["packets"] for name, told in self.status()["reasons"].items()}

    def keys(self, limit: str) -> list[str]:
        """Whose buckets of a limit are not full."""
        found = self.done("GET", f"/v1/buckets?limit={limit}")["buckets"]
        return sorted(bucket["key"] for bucket in found)

    def program(self, nic: str) -> tuple[str, int]:
        """Mode and id of the XDP program on a NIC as the kernel tells it; ("", 0): none."""
        (shown,) = json.loads(self.host.told("ip", "-json", "-details", "link", "show", nic))
        xdp = shown.get("xdp", {})
        return XDP_MODES.get(xdp.get("mode", 0), ""), int(xdp.get("prog", {}).get("id", 0))

    def index(self, nic: str) -> int:
        """The kernel's number of a NIC; 0: there is none of that name."""
        told = self.host.run("cat", f"/sys/class/net/{nic}/ifindex").stdout
        return int(told or 0)

    def addresses(self, nic: str) -> list[str]:
        """Of a NIC that is up and has its carrier."""
        shown = json.loads(self.host.run("ip", "-json", "address", "show", nic, "up").stdout or "[]")
        return [
            told["local"] for link in shown if link.get("operstate") == "UP" for told in link["addr_info"]
        ]

    def received(self, nic: str) -> int:
        """Packets that the driver has received, whatever became of them."""
        return int(self.host.told("cat", f"/sys/class/net/{nic}/statistics/rx_packets"))

    def met(self, nic: str) -> int:
        """Of these, packets that met a program in native mode."""
        return sum(queue["xdp_packets"] for queue in self.queues(nic).values())

    def interrupts(self, nic: str) -> list[int]:
        """How often each receive queue has called a CPU."""
        device = self.host.told("readlink", f"/sys/class/net/{nic}/device").strip().rpartition("/")[2]
        lines = [line.split() for line in self.host.told("cat", "/proc/interrupts").splitlines()]
        queues = [line for line in lines if line[-1].startswith(f"{device}-input")]
        return [sum(int(word) for word in line[1:] if word.isdigit()) for line in queues]

    def queues(self, nic: str) -> dict[int, dict[str, int]]:
        """The driver's own counters of what met a program, by receive queue."""
        found: dict[int, dict[str, int]] = {}
        for line in self.host.told("ethtool", "--statistics", nic).splitlines():
            name, _, value = line.strip().partition(": ")
            if told := QUEUE.match(name):
                found.setdefault(int(told[1]), {})[told[2]] = int(value)
        return found

    def property(self, unit: str, name: str) -> str:
        """What systemd tells of a unit."""
        return self.host.told("systemctl", "show", "--property", name, "--value", unit).strip()

    def kill(self) -> None:
        """The hard way; wait for the daemon that systemd starts in its place."""
        before = self.property(UNIT, "MainPID")
        self.host.told("systemctl", "kill", "--signal=KILL", UNIT)
        until(lambda: self.property(UNIT, "MainPID") not in ("0", before), "another daemon", READY_S)
        self.wait()

    def install(self, source: str = "", timeout: float = 1200) -> str:
        """`./appliance install` of a checkout there; what it says."""
        script = f"cd {source or self.lab.source} && ./appliance install"
        told = self.host.told("sh", "-c", script, timeout=timeout)
        self.wait()
        return told
