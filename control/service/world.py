# SPDX-License-Identifier: Apache-2.0
"""All that is decided, as one value: changing it means making another and putting that in force."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from valkyrie.control.limits import MEASURES, Desired, Limit, Override
from valkyrie.control.state.nics import Nic
from valkyrie.control.state.slots import Allotment


@dataclass(frozen=True)
class World:
    """`desired` is without protects: those come from the settings and from `nics`. `observers` are limits
    that only report what they match, by the place of their observation; no state keeps them.
    """

    desired: Desired
    nics: Mapping[str, Nic] = field(default_factory=dict)
    allotment: Allotment = field(default_factory=Allotment)
    observers: Mapping[int, Limit] = field(default_factory=dict)

    @cached_property
    def limits(self) -> dict[str, Limit]:
        return {limit.name: limit for limit in self.desired.limits}

    @cached_property
    def overrides_of(self) -> Counter[str]:
        """How many overrides each limit has."""
        return Counter(entry.limit for entry in self.desired.overrides)

    @cached_property
    def name_of_slot(self) -> dict[int, str]:
        """Limits by the slot of their counters."""
        return {slot.slot: name for name, slot in self.allotment.slots.items()}

    def overrides_for(self, name: str) -> list[Override]:
        return (
            [entry for entry in self.desired.overrides if entry.limit == name]
            if self.overrides_of[name]
            else []
        )

    def deepest(self, name: str) -> int:
        """The largest capacity, in time units, that the plans of a limit give a bucket."""
        limit = self.limits[name]
        one_of_each = {(entry.rate, entry.burst): entry for entry in self.overrides_for(name)}
        costs = [entry.cost(MEASURES[limit.measure]) for entry in one_of_each.values()]
        return max(cost.tau for cost in [limit.cost, *costs])

    def but(self, **parts: Any) -> World:
        """The world with other parts. What was counted of 100,000 overrides is not counted again."""
        new = replace(self, **parts)
        if new.desired.overrides is self.desired.overrides and "overrides_of" in self.__dict__:
            new.__dict__["overrides_of"] = self.overrides_of
        return new

    def protects(self, always: Iterable[str]) -> tuple[str, ...]:
        """Prefixes that are never dropped: the settings' and those of every NIC."""
        return tuple(sorted({*always, *(prefix for nic in self.nics.values() for prefix in nic.protect)}))

    def nic_slots(self) -> dict[str, int]:
        return {name: nic.slot for name, nic in self.nics.items()}


def with_desired(world: World, **parts: Any) -> World:
    """The world with other limits, overrides, exempts or bans; given tuples are sorted as Desired says."""
    return world.but(desired=replace(world.desired, **parts))
