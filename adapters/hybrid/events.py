# SPDX-License-Identifier: Apache-2.0
"""What a chain of stores tells: switches as they happen, and how it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from valkyrie.adapters.hybrid.chain import Kind
from valkyrie.adapters.store import StoreStats


@dataclass(frozen=True, slots=True)
class StoreEvent:
    """`source` or `target` None: no store. `why` is for people."""

    kind: Kind
    source: str | None
    target: str | None
    why: str

    def __str__(self) -> str:
        if self.target is None:
            return f"{self.source} is away and no other store serves: {self.why}"
        if self.source is None:
            return f"{self.target} serves again ({self.why})"
        if self.kind == "fail-back":
            return f"back from {self.source} to {self.target} ({self.why})"
        return f"{self.source} is away, using {self.target}: {self.why}"


Listener = Callable[[StoreEvent], None]


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """`ready` may be used at once; `well` waits until it was well for `hold_s`; `away` does not serve."""

    name: str
    state: Literal["in-use", "ready", "well", "away", "starting"]
    detail: str
    latency_ms: float
    well_s: float | None
    hold_s: float
    stats: StoreStats | None


@dataclass(frozen=True, slots=True)
class ChainStatus:
    """`in_use` None: every store is away, and `when_all_fail` decides."""

    in_use: str | None
    when_all_fail: str
    stores: tuple[MemberStatus, ...]
    switch_overs: int
    fail_backs: int
    all_aways: int
    degraded: int  # decisions made by when_all_fail
    carried: int  # buckets told to another store
    forgotten: int  # buckets that the bound of what is remembered made us forget while in debt
