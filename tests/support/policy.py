# SPDX-License-Identifier: Apache-2.0
"""From a policy to a loaded program that enforces it, and to the reference beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from support.bpf import SECRET, Kernel
from support.reference.bucket import Plan, Table
from support.reference.police import Police
from support.reference.scenario import Scenario
from valkyrie.control.abi import MAX_LIMITS
from valkyrie.control.limits import MEASURES, Desired, Limit, Override
from valkyrie.control.ruleset.compile import CompiledRuleset, RulesetSettings, SlotUid, compile_ruleset
from valkyrie.control.ruleset.plans import plan_row

LOOPBACK = 1
"""The interface of every test run: ifindex 1."""
NIC_SLOTS = {"eth0": 3, "eth1": 5}
FIRST_UID = 100
"""Of the limit that comes first by name; the others follow."""


@dataclass(frozen=True)
class Published:
    """What is in force, and the numbers that the limits were given."""

    compiled: CompiledRuleset
    numbers: dict[str, SlotUid]

    @property
    def uid(self) -> int:
        """Of the limit that comes first by name."""
        return self.numbers[min(self.numbers)].uid

    @property
    def slot(self) -> int:
        """Of the limit that comes first by name."""
        return self.numbers[min(self.numbers)].slot


def limit(name: str = "one", **fields: Any) -> Limit:
    """A limit as people write it."""
    return Limit(name=name, **fields)


def publish(
    kernel: Kernel, limits: Iterable[Limit] = (), *, desired: Desired | None = None, **settings: Any
) -> Published:
    """Put limits, or a whole policy, in force. Wall time is taken to have begun at boot."""
    desired = desired or Desired.of(limits)
    numbers = {
        entry.name: SlotUid(slot=(7 + i) % MAX_LIMITS, uid=FIRST_UID + i)
        for i, entry in enumerate(desired.limits)
    }
    compiled = compile_ruleset(
        desired,
        slots=numbers,
        nic_slots=NIC_SLOTS,
        cpus=kernel.dp.sizes.cpus,
        settings=RulesetSettings(max_nodes=kernel.dp.sizes.nodes, **settings),
        serial=kernel.dp.serial + 1,
        mono_now_ns=0,
        wall_now_ns=0,
    )
    kernel.dp.publish(compiled)
    return Published(compiled, numbers)


def enforce(kernel: Kernel, scenario: Scenario) -> Police:
    """Put a scenario in force; the reference of the same policy, its table empty."""
    if scenario.interface is not None:
        kernel.dp.set_nic(LOOPBACK, NIC_SLOTS[scenario.interface])
    published = publish(
        kernel,
        desired=scenario.desired(),
        malformed_drop=scenario.malformed_drop,
        table_full_open=scenario.full_open,
        event_sample=0,
    )

    def plan_of(entry: Limit, override: Override | None) -> Plan:
        measure = MEASURES[entry.measure]
        cost = entry.cost if override is None else override.cost(measure)
        mult, tau, batch, shift, _ = plan_row(cost, measure, entry.key_spec, kernel.dp.sizes.cpus)
        return Plan(mult=mult, shift=shift, tau=tau, batch=batch)

    rules = scenario.rules(published.compiled.order, dict(published.numbers), plan_of)
    return Police(rules, SECRET, Table(kernel.dp.sizes.sets, full_open=scenario.full_open))
