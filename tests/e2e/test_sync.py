# SPDX-License-Identifier: Apache-2.0
"""What a store keeps comes back: the kernel's table, the state, or both were lost."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

from support.appliance import READY_S, Appliance
from support.way import SLOW, Way

QUICK = {"interval_seconds": 0.2}


def wait_for(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def kept(appliance: Appliance) -> dict[str, Any]:
    found: dict[str, Any] = appliance.done("GET", "/v1/status")["sync"]
    return found


def rounds_after(appliance: Appliance, count: int) -> None:
    """Wait until so many more rounds are over, so that what was before is in the store."""
    before = kept(appliance)["rounds"]
    wait_for(lambda: kept(appliance)["rounds"] >= before + count, "no round of the sync ended")


def police(appliance: Appliance) -> Way:
    """Attached, and the bucket of the world's address used up and in the store."""
    appliance.configure(sync=QUICK)
    appliance.start()
    appliance.done("PUT", "/v1/limits/slow", SLOW)
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    way = Way(appliance)
    assert way.passed(10) == 3
    rounds_after(appliance, 2)
    return way


def forget_kernel(appliance: Appliance) -> None:
    """As a reboot does: the program off, the pins and the maps gone."""
    subprocess.run(appliance.inside.namespace.command("ip", "link", "set", "nic0", "xdp", "off"), check=True)
    subprocess.run(["umount", str(appliance.bpffs)], check=True)
    subprocess.run(["mount", "-t", "bpf", "bpf", str(appliance.bpffs)], check=True)


def forget_state(appliance: Appliance) -> None:
    lost = list((appliance.folder / "state").glob("state.db*"))
    assert lost
    for file in lost:
        file.unlink()


def test_after_kill_9_and_with_a_new_table_the_buckets_and_counters_are_as_they_were(
    bare_appliance: Appliance,
) -> None:
    way = police(bare_appliance)
    bare_appliance.kill()
    forget_kernel(bare_appliance)
    assert way.passed(1) == 1
    bare_appliance.start()
    assert bare_appliance.done("GET", "/v1/status")["program"]["how"] == "built"
    assert kept(bare_appliance)["restored"] == 1, kept(bare_appliance)
    assert way.passed(10) == 0
    (bucket,) = bare_appliance.done("GET", "/v1/buckets?limit=slow")["buckets"]
    assert (bucket["key"], bucket["tokens_left"]) == ("10.9.0.2", 0)


def test_a_stop_writes_what_the_last_round_has_not(bare_appliance: Appliance) -> None:
    bare_appliance.configure(sync={"interval_seconds": 3600})
    bare_appliance.start()
    bare_appliance.done("PUT", "/v1/limits/slow", SLOW)
    bare_appliance.done("POST", "/v1/nics/nic0/attach", {})
    way = Way(bare_appliance)
    wait_for(lambda: kept(bare_appliance)["rounds"] == 1, "no first round")
    bare_appliance.done("PUT", "/v1/limits/slow", SLOW | {"rate": "1/h", "burst": "5"})
    assert way.passed(10) == 5
    assert bare_appliance.stop() == 0
    forget_kernel(bare_appliance)
    bare_appliance.start()
    assert way.passed(10) == 0
    assert bare_appliance.done("GET", "/v1/limits/slow")["counters"]["passed"] == 5


def test_a_reset_is_told_to_the_store(bare_appliance: Appliance) -> None:
    way = police(bare_appliance)
    bare_appliance.done("POST", "/v1/buckets/reset", {"limit": "slow", "key": "10.9.0.2"})
    wait_for(lambda: kept(bare_appliance)["dropped"] == 1, "the reset was not told")
    bare_appliance.kill()
    forget_kernel(bare_appliance)
    bare_appliance.start()
    assert way.passed(10) == 3


def test_a_lost_state_comes_back_from_the_store_and_no_gate_opens(appliance: Appliance) -> None:
    way = police(appliance)
    program = appliance.program()
    appliance.kill()
    forget_state(appliance)
    appliance.start()
    assert appliance.program() == program
    assert way.passed(10) == 0
    (limit,) = appliance.done("GET", "/v1/limits")["limits"]
    assert (limit["name"], limit["counters"]["matched"]) == ("slow", 20)
    newest = appliance.done("GET", "/v1/audit")["audit"][0]
    assert (newest["action"], newest["user"], newest["detail"]["limits"]) == ("restore", "valkyried", 1)


def test_a_store_that_cannot_be_had_neither_delays_packets_nor_the_end_and_is_told(
    appliance: Appliance,
) -> None:
    (appliance.folder / "state").joinpath("store.db").mkdir()
    appliance.configure(sync=QUICK)
    assert appliance.start() < READY_S / 2
    appliance.done("PUT", "/v1/limits/slow", SLOW)
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    assert Way(appliance).passed(10) == 3
    wait_for(lambda: kept(appliance)["state"] == "away", "not said that the store is away")
    assert "store.db" in kept(appliance)["problem"]
    began = time.monotonic()
    assert appliance.stop() == 0
    assert time.monotonic() - began < 10


def test_two_appliances_of_one_name_do_not_write_over_each_other(appliance: Appliance) -> None:
    way = police(appliance)
    assert way.passed(1) == 0
    appliance.kill()
    token = appliance.folder / "state" / "sync.token"
    token.write_text(json.dumps({"machine": "another", "token": "00" * 16}))
    appliance.start()
    wait_for(lambda: kept(appliance)["state"] == "refused", "the other owner was not seen")
    assert way.passed(1) == 0
    wait_for(lambda: kept(appliance)["state"] == "ok", "the name was not taken from an owner that is silent")
