# SPDX-License-Identifier: Apache-2.0
"""What the service needs of the data plane. kernel.py is the kernel's; tests bring one in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from valkyrie.control.dataplane.watches import Watches
from valkyrie.control.ruleset.compile import CompiledRuleset
from valkyrie.control.service.world import World


@dataclass(frozen=True)
class Figures:
    """Counters summed over CPUs: abi.LIMIT_STATS by slot, abi.REASON_STATS by reason, the table's by name."""

    limits: np.ndarray[Any, Any]
    reasons: np.ndarray[Any, Any]
    table: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Attached:
    """The mode in force; `note` says why it is not the one asked for."""

    mode: str
    note: str = ""


@dataclass(frozen=True)
class Wire:
    """A NIC of the host. `carries`: our program, of this or a former build, in `mode` native or generic."""

    running: bool
    carries: bool
    mode: str = ""


@dataclass(frozen=True)
class LeaseFigures:
    """Leases with tokens left: those that can be spent (`held`), and those that lapsed before they were
    (`lapsed`: refilled since, so nobody lost them). In seconds of their limits' refill, all CPUs together.
    """

    held: int = 0
    lapsed: int = 0
    held_s: float = 0.0
    lapsed_s: float = 0.0


@dataclass(frozen=True)
class Banned:
    """A source, /32 or /64, that a limit has banned for so long from now."""

    prefix: str
    left_ns: int


class Engine(Protocol):
    """Calls come from the thread of changes, one at a time, unless it says otherwise."""

    @property
    def cpus(self) -> int:
        """Possible CPUs of the host."""

    @property
    def capacity(self) -> int:
        """Buckets that the table holds."""

    def start(self, ruleset: CompiledRuleset) -> None:
        """Have the program of this build ready with the ruleset in force, buckets kept. Before all else.

        Raises DataplaneError, Unavailable, PermissionRefused; then what was in force stays so.
        """

    def finish(self) -> None:
        """Let go of a former program, if every NIC has been given the new one; else it stays known."""

    def publish(self, ruleset: CompiledRuleset) -> None:
        """Put the ruleset in force; what was in force stays whole if this raises."""

    def purge(self, uids: Collection[int]) -> None:
        """Forget the buckets and leases of these uids."""

    def cap(self, uid: int, tau: int) -> None:
        """Let no bucket of the uid be further from full than `tau` time units."""

    def zero(self, slots: Collection[int]) -> None:
        """Set the counters of these slots to zero."""

    def attach(self, nic: str, *, slot: int, mode: str, replace: bool) -> Attached:
        """Attach the program. Raises NotFound, Foreign, DataplaneError; then the NIC is as it was."""

    def adopt(self, nic: str, *, slot: int, mode: str) -> Attached | None:
        """See to it that the NIC carries the program of this build; None if it did already.

        Raises as attach does; never replaces somebody else's program.
        """

    def detach(self, nic: str) -> None:
        """Take our program off, if it is there. Raises Foreign, DataplaneError."""

    def attached(self) -> Mapping[str, str]:
        """NICs that carry our program, with the mode: native or generic. From any thread."""

    def carriers(self) -> Collection[str]:
        """The names of NICs that carry our program, of this or a former build."""

    def holders(self) -> Mapping[int, str]:
        """By slot, the names that NICs with our program have now: renaming one leaves the program on it.
        From any thread.
        """

    def wires(self) -> Mapping[str, Wire]:
        """Every NIC of the host by its name. From any thread. Raises Unavailable."""

    @property
    def watches(self) -> Watches:
        """Captures and observations. From any thread; after start()."""

    def figures(self) -> Figures:
        """Counters as they are now. From any thread."""

    def leases(self) -> LeaseFigures:
        """What CPUs have bought ahead. From any thread."""

    def occupancy(self) -> int:
        """Buckets that are not full, of the whole table. From any thread."""

    def identity(self) -> Mapping[str, Any]:
        """Which program runs: its id and tag, and how it came to be: adopted, built or upgraded."""

    def explain(self, packet: str, world: World, order: Sequence[str]) -> dict[str, Any]:
        """What the loaded program would say of a packet, without taking tokens. Raises InvalidInput.

        `order` names the limit at each position of the ruleset in force.
        """

    def buckets(
        self, world: World, *, limit: str | None, key: str | None, live: bool, count: int
    ) -> list[dict[str, Any]]:
        """Buckets, the emptiest first: {limit, key, tokens_left, burst, full_in_ns}. From any thread.

        Raises InvalidInput.
        """

    def reset(self, world: World, limit: str, key: str | None) -> int:
        """Make buckets of a limit full again; how many there were."""

    def bans(self, count: int) -> list[Banned]:
        """Sources that limits have banned, the longest first. From any thread."""

    def lift(self, prefix: str) -> int:
        """End the ban that a limit made of this prefix, in canonical form; how many there were: 0 or 1."""

    def close(self) -> None:
        """Let go of the maps; what is attached stays."""
