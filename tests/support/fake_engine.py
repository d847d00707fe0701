# SPDX-License-Identifier: Apache-2.0
"""The data plane in memory: what the service asks of the kernel, and faults on demand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from valkyrie.control import abi
from valkyrie.control.dataplane.watches import Watches
from valkyrie.control.errors import DataplaneError, Foreign, NotFound
from valkyrie.control.ruleset.compile import CompiledRuleset
from valkyrie.control.service.engine import Attached, Banned, Figures, LeaseFigures, Wire
from valkyrie.control.service.world import World


class FakeEngine:
    """`links` are the NICs that there are, with the program on each: "", "ours" or "foreign"."""

    cpus = 2
    capacity = 8192

    def __init__(self, *links: str) -> None:
        self.links = dict.fromkeys(links, "")
        self.down: set[str] = set()
        self.published: list[CompiledRuleset] = []
        self.purged: list[int] = []
        self.zeroed: list[int] = []
        self.capped: list[tuple[int, int]] = []
        self.slots: dict[str, int] = {}
        self.fail: dict[str, Exception] = {}
        self.counters = np.zeros(abi.MAX_LIMITS, abi.LIMIT_STATS)
        self.rows: list[dict[str, Any]] = []
        self.banned: dict[str, int] = {}
        self.calls: list[str] = []
        self.closed = False
        self.watch = np.zeros(1, abi.WATCH)
        self.watch_control = np.zeros(1, abi.CONTROL)
        self.watch_stats = np.zeros((self.cpus, abi.WATCHES), abi.WATCH_STATS)
        self.watches = Watches(self.watch_control, self.watch, self.watch_stats)

    @property
    def in_force(self) -> CompiledRuleset:
        return self.published[-1]

    def _do(self, what: str) -> None:
        self.calls.append(what)
        if what in self.fail:
            raise self.fail[what]

    def start(self, ruleset: CompiledRuleset) -> None:
        self._do("start")
        self.published.append(ruleset)

    def finish(self) -> None:
        self._do("finish")

    def publish(self, ruleset: CompiledRuleset) -> None:
        self._do("publish")
        self.published.append(ruleset)

    def purge(self, uids: Collection[int]) -> None:
        self._do("purge")
        self.purged += uids

    def cap(self, uid: int, tau: int) -> None:
        self._do("cap")
        self.capped.append((uid, tau))

    def zero(self, slots: Collection[int]) -> None:
        self._do("zero")
        self.zeroed += slots

    def attach(self, nic: str, *, slot: int, mode: str, replace: bool) -> Attached:
        self._do("attach")
        if nic not in self.links:
            raise NotFound(f"there is no NIC {nic}", "see `ip link`")
        if self.links[nic] == "foreign" and not replace:
            raise Foreign(f"{nic} holds another XDP program: id 7, name other", "detach it, or --replace")
        self.links[nic] = "ours"
        self.slots[nic] = slot
        return Attached("native" if mode == "auto" else mode)

    def adopt(self, nic: str, *, slot: int, mode: str) -> Attached | None:
        if self.links.get(nic) == "ours":
            self.slots[nic] = slot
            return None
        return self.attach(nic, slot=slot, mode=mode, replace=False)

    def detach(self, nic: str) -> None:
        self._do("detach")
        if f"detach {nic}" in self.fail:
            raise self.fail[f"detach {nic}"]
        if nic not in self.links:
            raise NotFound(f"there is no NIC {nic}", "see `ip link`")
        self.links[nic] = ""

    def attached(self) -> Mapping[str, str]:
        return {nic: "native" for nic, held in self.links.items() if held == "ours"}

    def carriers(self) -> Collection[str]:
        return self.attached().keys()

    def holders(self) -> Mapping[int, str]:
        return {slot: nic for nic, slot in self.slots.items() if self.links.get(nic) == "ours"}

    def rename(self, nic: str, to: str) -> None:
        self.links[to] = self.links.pop(nic)
        self.slots[to] = self.slots.pop(nic)

    def wires(self) -> Mapping[str, Wire]:
        return {
            nic: Wire(running=nic not in self.down, carries=held == "ours", mode="native")
            for nic, held in self.links.items()
        }

    def leases(self) -> LeaseFigures:
        return LeaseFigures()

    def figures(self) -> Figures:
        return Figures(
            self.counters, np.zeros(abi.REASONS, abi.REASON_STATS), {"inserted": 0, "evicted_live": 0}
        )

    def occupancy(self) -> int:
        return 0

    def identity(self) -> Mapping[str, Any]:
        return {"id": 1, "tag": "0", "how": "adopted", "seconds": 0.0}

    def explain(self, packet: str, world: World, order: Sequence[str]) -> dict[str, Any]:
        self._do("explain")
        return {
            "verdict": "pass",
            "reason": "no_limit",
            "limit": None,
            "passes_on": [],
            "limits": [{"name": name} for name in order],
        }

    def buckets(
        self, world: World, *, limit: str | None, key: str | None, live: bool, count: int
    ) -> list[dict[str, Any]]:
        rows = [row for row in self.rows if limit in (None, row["limit"]) and key in (None, row["key"])]
        return rows[:count]

    def reset(self, world: World, limit: str, key: str | None) -> int:
        self._do("reset")
        return 1

    def bans(self, count: int) -> list[Banned]:
        return [Banned(prefix, left) for prefix, left in self.banned.items()][:count]

    def lift(self, prefix: str) -> int:
        return int(self.banned.pop(prefix, None) is not None)

    def close(self) -> None:
        self.closed = True


def refused() -> DataplaneError:
    return DataplaneError("the maps are gone", "start again")
