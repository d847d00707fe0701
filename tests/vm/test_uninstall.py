# SPDX-License-Identifier: Apache-2.0
"""`./appliance uninstall --purge` leaves the machine as it was before anything was installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import traces
from harness.lab import Lab
from support.sender import Sender
from support.whole import Whole

NIC = "data1"
PACKETS = 100
KINDS = {"path", "content", "group", "unit", "pin", "program", "run"}  # of what an installation adds


@pytest.fixture
def installed_again(whole: Whole) -> Iterator[None]:
    yield
    whole.install()


@pytest.mark.usefixtures("installed_again")
def test_uninstalling_leaves_no_trace_of_what_was_installed_and_used(lab: Lab, whole: Whole) -> None:
    pristine = lab.results / traces.BEFORE
    if not pristine.exists():
        pytest.skip(f"nobody has looked at this machine before the installation: there is no {pristine}")
    whole.limit("echo", match="icmp-type echo-request", key="src", rate="1/h", burst="1")
    whole.attach(NIC)
    sender = Sender(lab, NIC)
    assert sender.send("ping", "--count", str(PACKETS), "--rate", "200")["total"]["answered"] == 1
    before = set(pristine.read_text().splitlines())
    used = set(traces.look(lab.appliance, lab.source)) - before
    assert {line.split()[0] for line in used} == KINDS
    told = lab.appliance.told("sh", "-c", f"cd {lab.source} && ./appliance uninstall --purge", timeout=120)
    assert f"{NIC}: detached" in told
    after = set(traces.look(lab.appliance, lab.source))
    assert sorted(after - before) == []
    assert sorted(before - after) == []
    assert sender.send("ping", "--count", str(PACKETS), "--rate", "200")["total"]["answered"] == PACKETS
