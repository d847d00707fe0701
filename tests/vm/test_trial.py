# SPDX-License-Identifier: Apache-2.0
"""`attach --confirm`: what nobody confirms takes itself off the NIC, what somebody does stays."""

import json
import time

import pytest

from harness.lab import Lab
from support.sender import Sender
from support.whole import Whole, until

NIC = "data1"
TRIAL_S = 5
BURST = 3


def on_trial(whole: Whole) -> float:
    """Attached by the command line, with a limit that lets nearly nothing through; when that was."""
    whole.limit("echo", match="icmp-type echo-request", key="src", rate="1/h", burst=str(BURST))
    began = time.monotonic()
    told = whole.host.told("valkyrie-ctl", "attach", NIC, "--confirm", f"{TRIAL_S}s", "-o", "json")
    assert 0 < json.loads(told)["confirm_left_s"] <= TRIAL_S
    return began


@pytest.mark.quick
def test_an_attachment_that_nobody_confirms_ends_by_itself(lab: Lab, whole: Whole) -> None:
    began = on_trial(whole)
    assert whole.program(NIC)[0] == "native"
    until(lambda: whole.program(NIC) == ("", 0), "the program is off", TRIAL_S + 20)
    assert time.monotonic() - began >= TRIAL_S
    assert whole.status()["nics"] == []
    notes = [event.get("what", "") for event in whole.done("GET", "/v1/events/last")["events"]]
    assert f"{NIC}: not confirmed in time, so detached" in notes
    assert Sender(lab, NIC).send("ping", "--count", "20", "--rate", "100")["total"]["answered"] == 20


def test_an_attachment_that_is_confirmed_outlasts_its_trial(lab: Lab, whole: Whole) -> None:
    began = on_trial(whole)
    before = whole.program(NIC)
    assert whole.done("POST", f"/v1/nics/{NIC}/confirm")["confirm_left_s"] is None
    pings = Sender(lab, NIC).send("ping", "--count", "130", "--rate", "20")  # until after the trial
    assert time.monotonic() - began > TRIAL_S + 1
    assert pings["total"]["answered"] == BURST
    assert whole.program(NIC) == before
