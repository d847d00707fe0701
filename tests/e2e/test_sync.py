# SPDX-License-Identifier: Apache-2.0
"""What a store keeps comes back: the kernel's table, the state, or both were lost."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable
from typing import Any

from support.appliance import READY_S, Appliance
from support.way import SLOW, Way

QUICK = {"interval_seconds": 0.2}
BURST = 10_000


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


def start(appliance: Appliance) -> None:
    """Start, and wait for the programs for calls: a kill would leave their loader running, and it would
    meet the next daemon's at the same place.
    """
    appliance.start()
    wait_for((appliance.bpffs / "valkyrie" / "call").exists, "the programs for calls were not made")


def police(appliance: Appliance) -> Way:
    """Attached, and the bucket of the world's address used up and in the store."""
    appliance.configure(sync=QUICK)
    start(appliance)
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
    wait_for(lambda: kept(bare_appliance)["restored"] == 1, "the table was not filled")
    assert way.passed(10) == 0
    (bucket,) = bare_appliance.done("GET", "/v1/buckets?limit=slow")["buckets"]
    assert (bucket["key"], bucket["tokens_left"]) == ("10.9.0.2", 0)


def test_kill_9_at_any_moment_under_load_forgets_at_most_what_the_last_moment_passed(
    bare_appliance: Appliance,
) -> None:
    chance = random.Random(7)
    bare_appliance.configure(sync=QUICK)
    start(bare_appliance)
    bare_appliance.done("PUT", "/v1/limits/slow", SLOW | {"burst": str(BURST)})
    bare_appliance.done("POST", "/v1/nics/nic0/attach", {})
    way = Way(bare_appliance)
    for _ in range(2):
        end = time.monotonic() + chance.uniform(1.0, 2.5)
        passed: list[tuple[float, int]] = []
        total = BURST - tokens_left(bare_appliance)
        while time.monotonic() < end:
            total += way.passed(5)
            passed.append((time.monotonic(), total))
            time.sleep(0.01)
        bare_appliance.kill()
        killed = time.monotonic()
        forget_kernel(bare_appliance)
        start(bare_appliance)
        # One interval, and a round on a machine that has other things to do.
        surely_kept = max(count for at, count in passed if at < killed - 0.2 - 0.5)
        assert surely_kept <= BURST - tokens_left(bare_appliance) <= total


def tokens_left(appliance: Appliance) -> int:
    buckets = appliance.done("GET", "/v1/buckets?limit=slow")["buckets"]
    return int(buckets[0]["tokens_left"]) if buckets else BURST


def test_a_daemon_killed_before_it_had_filled_a_new_table_fills_it_at_the_next_start(
    bare_appliance: Appliance,
) -> None:
    way = police(bare_appliance)
    bare_appliance.kill()
    forget_kernel(bare_appliance)
    bare_appliance.configure(sync={"enabled": False})
    start(bare_appliance)
    bare_appliance.kill()
    assert way.passed(1) == 1
    bare_appliance.configure(sync=QUICK)
    start(bare_appliance)
    wait_for(lambda: kept(bare_appliance)["restored"] == 1, "the table was not filled")
    assert way.passed(10) == 0


def test_a_stop_writes_what_the_last_round_has_not(bare_appliance: Appliance) -> None:
    bare_appliance.configure(sync={"interval_seconds": 3600})
    start(bare_appliance)
    bare_appliance.done("PUT", "/v1/limits/slow", SLOW)
    bare_appliance.done("POST", "/v1/nics/nic0/attach", {})
    way = Way(bare_appliance)
    wait_for(lambda: kept(bare_appliance)["rounds"] == 1, "no first round")
    bare_appliance.done("PUT", "/v1/limits/slow", SLOW | {"rate": "1/h", "burst": "5"})
    assert way.passed(10) == 5
    assert bare_appliance.stop() == 0
    forget_kernel(bare_appliance)
    bare_appliance.start()
    wait_for(lambda: kept(bare_appliance)["restored"] == 1, "the table was not filled")
    assert way.passed(10) == 0
    assert bare_appliance.done("GET", "/v1/limits/slow")["counters"]["passed"] == 5


def test_a_reset_is_told_to_the_store(bare_appliance: Appliance) -> None:
    way = police(bare_appliance)
    bare_appliance.done("POST", "/v1/buckets/reset", {"limit": "slow", "key": "10.9.0.2"})
    wait_for(lambda: kept(bare_appliance)["dropped"] == 1, "the reset was not told")
    bare_appliance.kill()
    forget_kernel(bare_appliance)
    bare_appliance.start()
    wait_for(lambda: kept(bare_appliance)["restored"] is not None, "the table was not filled")
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
