# SPDX-License-Identifier: Apache-2.0
"""The kernel's table for the contract suite: one for each appliance's name, since pins are one's alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.calls import Calls, served
from valkyrie.control.limits import Desired, Limit, Override
from valkyrie.control.ruleset.compile import RulesetSettings, SlotUid, compile_ruleset

SETS = 1024


class Tables:
    """Built when first asked for, empty when asked for by another test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._made: dict[str, Calls] = {}
        self._clean: set[str] = set()

    def begin(self) -> None:
        """Another test begins."""
        self._clean.clear()

    def pins(self, appliance: str, limits: list[dict[str, Any]]) -> Path:
        """The pins of this appliance's table, with the limits in force: each an entry for `limit_from`."""
        if appliance not in self._made:
            name = f"contract{len(self._made)}"
            self._made[appliance] = self._stack.enter_context(served(name, SETS))
        calls = self._made[appliance]
        if appliance not in self._clean:
            self._clean.add(appliance)
            calls.kernel.reset()
            calls.forget_values()
            _publish(calls, limits)
        return calls.kernel.dp.pin_dir


def _publish(calls: Calls, entries: list[dict[str, Any]]) -> None:
    limits, overrides, numbers = [], [], {}
    for entry in entries:
        rule = {name: value for name, value in entry.items() if name not in ("uid", "overrides")}
        limits.append(Limit(**rule))
        overrides += [Override(limit=entry["name"], **each) for each in entry.get("overrides", ())]
        numbers[entry["name"]] = SlotUid(entry["uid"], entry["uid"])
    compiled = compile_ruleset(
        Desired.of(limits, overrides),
        slots=numbers,
        nic_slots={},
        cpus=calls.kernel.dp.sizes.cpus,
        settings=RulesetSettings(max_nodes=calls.kernel.dp.sizes.nodes),
        serial=1,
        mono_now_ns=time.monotonic_ns(),
        wall_now_ns=time.time_ns(),
    )
    calls.kernel.dp.publish(compiled)


@pytest.fixture(scope="session")
def _yggdrasil_tables() -> Iterator[Tables]:
    if os.geteuid() != 0:
        pytest.skip("the kernel's table needs root")
    with ExitStack() as stack:
        yield Tables(stack)


@pytest.fixture
def yggdrasil_tables(_yggdrasil_tables: Tables) -> Tables:
    _yggdrasil_tables.begin()
    return _yggdrasil_tables
