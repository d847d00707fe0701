# SPDX-License-Identifier: Apache-2.0
"""Whoever behaves notices nothing of a flood that is limited: a long HTTP transfer, and short requests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.lab import Lab
from support.sender import Sender
from support.whole import Whole, until

NIC = "data4"
PORT = 8080
SIZE = 4 << 20
UNIT = "vm-web"
FOLDER = "/var/tmp/vm-web"
MAKE = 'mkdir -p "$1" && head -c "$2" /dev/urandom >"$1/file" && sha256sum <"$1/file"'
RATE = 10
# From a network of its own, SYNs to the very port that users come to, faster than the limit twenty times.
FLOOD = (
    "--from",
    "198.18.0.0/15",
    "--tcp-port",
    str(PORT),
    "--count",
    "100000",
    "--rate",
    "200",
    "--seconds",
    "300",
)
FETCH_S = 120
FETCH = """
import hashlib, sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=60) as answer:
    content = answer.read()
print(len(content), hashlib.sha256(content).hexdigest())
"""


@pytest.fixture(scope="module")
def checksum(lab: Lab) -> Iterator[str]:
    """Of the file that the appliance's web server has."""
    told = lab.appliance.told("sh", "-c", MAKE, "make", FOLDER, str(SIZE))
    run = ("systemd-run", "--quiet", f"--unit={UNIT}", f"--working-directory={FOLDER}")
    lab.appliance.told(*run, "python3", "-m", "http.server", str(PORT))
    ask = ("curl", "-sf", f"http://127.0.0.1:{PORT}/")
    until(lambda: lab.appliance.run(*ask).returncode == 0, "it serves", 60)
    yield told.split()[0]
    lab.appliance.run("systemctl", "stop", UNIT)
    lab.appliance.run("rm", "-r", FOLDER)


@pytest.mark.quick
def test_a_transfer_is_whole_and_requests_are_answered_during_a_flood(
    lab: Lab, whole: Whole, checksum: str
) -> None:
    sender = Sender(lab, NIC)
    whole.limit("syn", match=f"proto tcp dport {PORT} syn", key="src/15", rate=f"{RATE}/s", burst=str(RATE))
    whole.attach(NIC)
    with sender.start("syn-flood", *FLOOD) as flood:
        until(lambda: whole.counters("syn")["dropped"] > 100, "the flood is on", 60)
        before = whole.counters("syn")
        url = f"http://{sender.wire.appliance4}:{PORT}/file"
        told = lab.client.told("python3", "-c", FETCH, url, timeout=FETCH_S)
        users = sender.send("legit", "--count", "60", "--rate", "20", "--http-port", str(PORT), "--wait", "5")
        after = whole.counters("syn")
        sent = flood.stopped()["total"]["sent"]
    assert told.split() == [str(SIZE), checksum]
    assert users["kinds"]["http"]["lost"] == 0, users
    assert users["kinds"]["http"]["answered"] == 20
    dropped, passed = (after[name] - before[name] for name in ("dropped", "passed"))
    assert sent > dropped > 5 * passed, "there was no flood meanwhile"
