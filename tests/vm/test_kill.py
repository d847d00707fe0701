# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed under traffic: packets do not notice."""

import pytest

from harness.lab import Lab
from support.sender import Sender, serving
from support.whole import Whole, until

NIC = "data4"
BURST = 20
# Half of them echo requests, which are limited, half UDP, which is not; ended when the daemon is back.
TRAFFIC = ("--count", "100000", "--rate", "100", "--seconds", "300")


@pytest.mark.quick
def test_kill_9_lets_no_packet_through_that_a_limit_holds_and_holds_none_that_it_lets_through(
    lab: Lab, whole: Whole
) -> None:
    whole.limit("echo", match="icmp-type echo-request", key="src", rate="1/h", burst=str(BURST))
    whole.attach(NIC)
    program = whole.program(NIC)
    with serving(lab) as server, Sender(lab, NIC).start("legit", *TRAFFIC) as users:
        until(lambda: whole.counters("echo")["dropped"] > 0, "the bucket is empty", 60)
        before = whole.counters("echo")["matched"]
        whole.kill()
        assert whole.status()["program"]["how"] == "adopted"
        back = whole.counters("echo")["matched"]
        until(lambda: whole.counters("echo")["matched"] > back + 50, "the traffic goes on", 60)
        report, arrived = users.stopped(), server.stopped()
    assert back > before
    echo, udp = report["kinds"]["echo4"], report["kinds"]["udp"]
    assert (echo["answered"], echo["lost"]) == (BURST, echo["sent"] - BURST)
    assert (udp["answered"], udp["lost"]) == (udp["sent"], 0), udp
    assert arrived["kinds"]["udp"] == {"arrived": udp["sent"], "duplicated": 0}
    counters = whole.settled("echo", echo["sent"])
    assert (counters["passed"], counters["dropped"]) == (BURST, echo["sent"] - BURST)
    assert whole.program(NIC) == program
