# SPDX-License-Identifier: Apache-2.0
"""The daemon's own password for its store: given late, rotated, kept through kill -9, and seen nowhere."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.appliance import READY_S, Appliance
from support.ctl import command, environment
from support.servers import USERS, Server, server

FIRST, SECOND, WRONG = "first-password", "second-password", "no-password-of-anybody"
NAME = "store-password"


@pytest.fixture
def store() -> Iterator[Server]:
    with server("valkey", users=USERS) as made:
        yield made


def wait_for(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def sync(appliance: Appliance) -> dict[str, Any]:
    found: dict[str, Any] = appliance.done("GET", "/v1/status")["sync"]
    return found


def works(appliance: Appliance) -> None:
    """Some more rounds of the sync end well."""
    wait_for(lambda: sync(appliance)["state"] == "ok", "the sync never worked")
    before = sync(appliance)["rounds"]
    wait_for(lambda: sync(appliance)["rounds"] >= before + 3, "no round of the sync ended")
    assert sync(appliance)["state"] == "ok"


def creds(appliance: Appliance, verb: str, value: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("creds", verb, NAME, "--stdin"), input=f"{value}\n", text=True, capture_output=True,
        check=False, timeout=60, env=environment(appliance.folder / "v.sock"),
    )  # fmt: skip


def connections(store: Server) -> set[bytes]:
    lines = store.run("CLIENT", "LIST").splitlines()
    return {line.split()[0] for line in lines if b"user=app" in line.split()}


def ended(appliance: Appliance, number: int) -> str:
    """End the daemon; all that it had said."""
    process, appliance.process = appliance.process, None
    assert process is not None
    process.send_signal(number)
    said: str = process.communicate(timeout=READY_S)[1]
    return said


def test_a_password_given_late_rotated_and_kept_is_seen_nowhere(appliance: Appliance, store: Server) -> None:
    valkey = {"url": store.unix_url, "username": "app", "credential": NAME}
    appliance.configure(store={"mode": "valkey", "valkey": valkey}, sync={"interval_seconds": 0.2})
    seen = []
    appliance.start()
    wait_for(lambda: sync(appliance)["state"] == "away", "nothing lacks the password")
    assert f"valkyrie-ctl creds set {NAME}" in str(sync(appliance))

    assert creds(appliance, "set", FIRST).returncode == 0
    works(appliance)
    before = connections(store)
    told = creds(appliance, "rotate", SECOND)
    assert "taken by" in told.stdout, told
    store.run("ACL", "SETUSER", "app", f"<{FIRST}")
    works(appliance)
    assert connections(store) >= before

    refused = creds(appliance, "rotate", WRONG)
    assert refused.returncode == 4, refused
    works(appliance)
    assert connections(store) >= before
    seen += [told.stdout, told.stderr, refused.stdout, refused.stderr, str(sync(appliance))]

    assert appliance.process is not None
    proc = Path("/proc") / str(appliance.process.pid)
    seen += [(proc / name).read_bytes().decode(errors="replace") for name in ("cmdline", "environ")]
    (cores,) = (line for line in (proc / "limits").read_text().splitlines() if "core file" in line)
    assert cores.split()[4:6] == ["0", "0"]
    seen.append(ended(appliance, signal.SIGKILL))
    appliance.start()
    works(appliance)
    seen += [str(appliance.done("GET", path)) for path in ("/v1/creds", "/v1/status", "/v1/audit")]
    seen.append(ended(appliance, signal.SIGTERM))

    files = [file for file in (appliance.folder / "state").rglob("*") if file.is_file()]
    assert {"credentials.json", "master.key", "state.db"} <= {file.name for file in files}
    seen += [file.read_bytes().decode("latin-1") for file in files]
    for value in (FIRST, SECOND, WRONG):
        assert all(value not in text for text in seen)
