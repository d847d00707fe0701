# SPDX-License-Identifier: Apache-2.0
"""A reboot, or a power cut, in the middle of a flood: not one packet of it gets past the limit meanwhile."""

from __future__ import annotations

import pytest

from harness.lab import Lab
from support.sender import Sender
from support.whole import UNIT, Whole, until

NIC = "data4"
BURST = 3
FLOOD = ("--count", "200000", "--rate", "200", "--seconds", "600")  # ended when the machine is up again
# The first things of a machine's network, each of which comes after network-pre.target.
NETWORK = ("network-pre.target", "systemd-networkd.service", "network.target", "ssh.service")


def udp_arrived(whole: Whole) -> int:
    """Datagrams that came to the appliance's UDP since boot, whether somebody listened or not."""
    table = [line.split() for line in whole.host.told("cat", "/proc/net/snmp").splitlines()]
    names, values = (line for line in table if line[0] == "Udp:")
    return sum(int(values[names.index(name)]) for name in ("InDatagrams", "NoPorts", "InErrors"))


def moment(whole: Whole, unit: str, name: str = "ActiveEnterTimestampMonotonic") -> int:
    """When something became of a unit, in microseconds since boot; 0: never."""
    return int(whole.property(unit, name))


@pytest.mark.parametrize("cut", [False, True], ids=["in order", "power cut"])
def test_limits_and_spent_buckets_are_back_before_the_network_is(lab: Lab, whole: Whole, cut: bool) -> None:
    if cut and lab.control is None:
        pytest.skip("this lab cannot cut the appliance's power")
    sender = Sender(lab, NIC)
    whole.limit("flood", match="proto udp", key="src", rate="1/h", burst=str(BURST))
    whole.attach(NIC)
    before = udp_arrived(whole)
    with sender.start("udp-amplification", *FLOOD) as flood:
        until(lambda: whole.counters("flood")["dropped"] > 100, "the flood is on", 60)
        assert udp_arrived(whole) - before == BURST
        rounds = whole.status()["sync"]["rounds"]
        until(lambda: bool(whole.status()["sync"]["rounds"] >= rounds + 2), "what passed is kept")
        spent = whole.counters("flood")["passed"]
        lab.reboot(cut=cut)
        whole.wait()
        until(lambda: whole.counters("flood")["dropped"] > 100, "the flood is still on", 60)
        counters = whole.counters("flood")
        assert flood.stopped()["total"]["sent"] > 1000

    assert udp_arrived(whole) == 0
    assert whole.reasons()["conforms"] == 0
    until(lambda: whole.met(NIC) == whole.received(NIC), "every packet since boot met the program")
    assert counters["passed"] == spent == BURST
    assert whole.status()["sync"]["restored"] == 1
    ((mode, program), (other, _)) = (whole.program(NIC), whole.program("data1"))
    assert (mode, program > 0, other) == ("native", True, "")
    assert whole.status()["program"]["how"] == "built"
    assert sender.send("ping", "--count", "50", "--rate", "100")["total"]["answered"] == 50
    ready = moment(whole, UNIT)
    assert ready > 0
    for unit in NETWORK:
        entered = moment(whole, unit, "InactiveExitTimestampMonotonic")
        assert ready <= entered, f"{unit} began {ready - entered} us before the service was ready"
