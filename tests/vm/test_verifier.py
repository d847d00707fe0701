# SPDX-License-Identifier: Apache-2.0
"""The programs as the guest's own compiler makes them are well below its kernel's bound."""

import json

from harness.lab import Lab

BOUND = 1_000_000
BUILD_S = 300.0  # BCC compiles two files, under emulation
PYTHON = "/opt/valkyrie/current/bin/python"
PROGRAMS = {"police", "police_more", "police_observe", "police_capture", "call", "value"}


def test_the_verifier_looks_at_no_more_than_six_tenths_of_its_bound(lab: Lab) -> None:
    told = lab.appliance.told(PYTHON, f"{lab.source}/vm/verified.py", timeout=BUILD_S)
    (lab.results / "verified.json").write_text(told)
    counts = json.loads(told)["programs"]
    assert counts.keys() == PROGRAMS
    assert all(0 < count < 0.6 * BOUND for count in counts.values()), counts
