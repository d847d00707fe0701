# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed under traffic: packets do not notice."""

import pytest

from harness.lab import Lab
from support.sender import Sender, serving
from support.whole import Whole, until

NIC = "data4"
BURST = 20
COUNT, RATE = 4000, 200  # half of them echo requests, which are limited, half UDP, which is not


@pytest.mark.quick
def test_kill_9_lets_no_packet_through_that_a_limit_holds_and_holds_none_that_it_lets_through(
    lab: Lab, whole: Whole
) -> None:
    whole.limit("echo", match="icmp-type echo-request", key="src", rate="1/h", burst=str(BURST))
    whole.attach(NIC)
    program = whole.program(NIC)
    words = ("--count", str(COUNT), "--rate", str(RATE))
    with serving(lab) as server, Sender(lab, NIC).start("legit", *words) as users:
        until(lambda: whole.counters("echo")["dropped"] > 0, "the bucket is empty")
        whole.kill()
        back = whole.counters("echo")["matched"]
        assert whole.status()["program"]["how"] == "adopted"
        assert back < COUNT // 2, "the traffic ended before the daemon was back"
        until(lambda: whole.counters("echo")["matched"] == COUNT // 2, "all were sent", COUNT / RATE)
        report, arrived = users.finished(), server.stopped()
    echo, udp = report["kinds"]["echo4"], report["kinds"]["udp"]
    assert (echo["sent"], echo["answered"]) == (COUNT // 2, BURST)
    assert (udp["sent"], udp["answered"], udp["lost"]) == (COUNT // 2, COUNT // 2, 0), udp
    assert arrived["kinds"]["udp"] == {"arrived": COUNT // 2, "duplicated": 0}
    counters = whole.counters("echo")
    assert (counters["passed"], counters["dropped"]) == (BURST, COUNT // 2 - BURST)
    assert whole.program(NIC) == program
