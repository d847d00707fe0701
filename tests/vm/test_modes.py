# SPDX-License-Identifier: Apache-2.0
"""A real driver, virtio_net: in both modes, with one queue and with four, every packet is policed."""

import pytest

from harness.lab import Lab
from support.sender import Sender
from support.whole import Whole

COUNT, BURST = 400, 50


@pytest.mark.quick
@pytest.mark.parametrize("nic", ["data1", "data4"])
@pytest.mark.parametrize("mode", ["native", "generic"])
def test_a_limit_holds_to_the_packet_over_all_queues(lab: Lab, whole: Whole, nic: str, mode: str) -> None:
    sender = Sender(lab, nic)
    whole.limit("syn", match="proto tcp dport 80 syn", key="src", rate="1/h", burst=str(BURST))
    whole.attach(nic, mode)
    before = whole.queues(nic)
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
    assert len(grown) == sender.wire.queues
    assert all(queue["packets"] > 0 for queue in grown.values()), grown
    assert sum(queue["packets"] for queue in grown.values()) >= COUNT
    for queue in grown.values():
        assert queue["xdp_packets"] == (queue["packets"] if mode == "native" else 0), grown
    dropped = sum(queue["xdp_drops"] for queue in grown.values())
    assert dropped == (COUNT - BURST if mode == "native" else 0)
