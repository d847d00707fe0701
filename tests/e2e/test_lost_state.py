# SPDX-License-Identifier: Apache-2.0
"""A daemon whose state, and the store that kept a copy of it, were lost while the kernel's maps were not."""

from __future__ import annotations

from support.appliance import Appliance
from support.way import SLOW, Way


def test_limits_of_a_new_state_inherit_no_buckets_and_no_counters(appliance: Appliance) -> None:
    appliance.start()
    appliance.done("PUT", "/v1/limits/slow", SLOW)
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    way = Way(appliance)
    assert way.passed(10) == 3
    appliance.kill()
    assert way.passed(10) == 0
    lost = [*appliance.folder.rglob("state.db*"), *appliance.folder.rglob("store.db*")]
    assert lost
    for file in lost:
        file.unlink()
    appliance.start()
    assert appliance.program() == 0
    appliance.done("PUT", "/v1/limits/slow", SLOW)
    assert appliance.done("GET", "/v1/limits/slow")["counters"]["matched"] == 0
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    assert way.passed(10) == 3
