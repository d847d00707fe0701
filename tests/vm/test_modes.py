# SPDX-License-Identifier: Apache-2.0
"""A real driver, virtio_net: in both modes, with one queue and with four, every packet is policed."""

import pytest

from harness.lab import Lab
from support.sender import Sender
from support.whole import Whole, until

COUNT, BURST = 400, 50


@pytest.mark.quick
@pytest.mark.parametrize("nic", ["data1", "data4"])
@pytest.mark.parametrize("mode", ["native", "generic"])
def test_a_limit_holds_to_the_packet_over_all_queues(lab: Lab, whole: Whole, nic: str, mode: str) -> None:
    sender = Sender(lab, nic)
    whole.limit("syn", match="proto tcp dport 80 syn", key="src", rate="1/h", burst=str(BURST))
    whole.attach(nic, mode)
    before, received, called = whole.queues(nic), whole.received(nic), whole.interrupts(nic)
    # Each from a port of its own, so that the client's side spreads them over the queues.
    syn = sender.send("syn-flood", "--count", str(COUNT), "--rate", "800")["kinds"]["syn"]

    counters = whole.settled("syn", COUNT)
    assert (counters["matched"], counters["passed"], counters["dropped"]) == (COUNT, BURST, COUNT - BURST)
    # Nobody listens there: whom the limit lets through is refused by a reset, all others hear nothing.
    assert (syn["refused"], syn["answered"], syn["lost"]) == (BURST, 0, COUNT - BURST)
    grown = {
        queue: {name: value - before[queue][name] for name, value in now.items()}
        for queue, now in whole.queues(nic).items()
    }
    assert whole.received(nic) - received >= COUNT
    assert len(grown) == len(called) == sender.wire.queues
    assert all(now > then for now, then in zip(whole.interrupts(nic), called, strict=True))
    if mode == "native":
        assert all(queue["xdp_packets"] > 0 for queue in grown.values()), grown
        missed = received - sum(queue["xdp_packets"] for queue in before.values())
        until(lambda: whole.received(nic) - whole.met(nic) == missed, "every packet met the program")
        assert sum(queue["xdp_drops"] for queue in grown.values()) == COUNT - BURST
    else:
        assert not any(value for queue in grown.values() for value in queue.values()), grown
