# SPDX-License-Identifier: Apache-2.0
"""What the rules look at: the part of a snapshot that alerts are about, in plain numbers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from valkyrie.adapters.hybrid.events import ChainStatus
from valkyrie.control.enums import Reason
from valkyrie.control.telemetry.snapshot import NicFigures, Snapshot

LEAST_SHARE = 0.01
DROPPED = tuple(reason for reason in Reason if Reason.LIMIT <= reason < Reason.BAD_ETHERNET)


class Counts(NamedTuple):
    """Packets that a limit has counted so far."""

    matched: int
    dropped: int
    shadow: int


@dataclass(frozen=True, slots=True)
class Talker:
    """A source, the limit (or reason) that drops it, and its share of all recent drops."""

    source: str
    limit: str
    share: float


@dataclass(frozen=True, slots=True)
class StoreSight:
    """`in_use` None: none serves. The counts rise from the start of the daemon."""

    first: str
    in_use: str | None
    switches: int
    breakers: Mapping[str, int]
    open: frozenset[str] = frozenset()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Sight:
    """A part that is None could not be looked at: what is known of it stays as it was."""

    wall: float
    limits: Mapping[str, Counts] | None = None
    table: Mapping[str, int] | None = None
    used: float | None = None
    dropped: int | None = None
    nics: Sequence[NicFigures] | None = None
    talkers: Sequence[Talker] | None = None
    store: StoreSight | None = None
    sync_lag: float | None = None
    sync_what: str = ""
    synced: bool = True  # False: nothing is to be kept in a store
    credentials: Mapping[str, float] | None = None
    restarted: str = ""  # in the first look of a daemon that came after another: how that ended
    events: Mapping[str, str] = field(default_factory=dict)


def sight_of(
    snapshot: Snapshot, talkers: Sequence[Mapping[str, Any]], dropped: float, restarted: str = ""
) -> Sight:
    """`talkers` are the largest, and `dropped` is what all of them come to."""
    return Sight(
        wall=snapshot.wall,
        limits=_limits(snapshot),
        table=snapshot.table,
        used=snapshot.occupancy / snapshot.capacity if snapshot.capacity else 0.0,
        dropped=sum(int(snapshot.reasons["packets"][reason]) for reason in DROPPED),
        nics=snapshot.nics,
        talkers=[
            Talker(one["key"], one["limit"], min(1.0, one["dropped"] / dropped))
            for one in talkers
            if dropped > 0 and one["dropped"] >= dropped * LEAST_SHARE
        ],
        store=None if snapshot.chain is None else _store(snapshot.chain),
        sync_lag=snapshot.sync.lag_s,
        sync_what=f"{snapshot.sync.state}: {snapshot.sync.problem}".removesuffix(": "),
        synced=snapshot.sync.state != "off",
        credentials=(
            None if snapshot.credentials_problem else {one.name: one.age_s for one in snapshot.credentials}
        ),
        restarted=restarted,
    )


def _limits(snapshot: Snapshot) -> Mapping[str, Counts]:
    matched, dropped, shadow = (
        snapshot.counters[name].tolist() for name in ("matched", "dropped", "shadow_dropped")
    )
    return {
        one.name: Counts(matched[one.slot], dropped[one.slot], shadow[one.slot]) for one in snapshot.limits
    }


def _store(chain: ChainStatus) -> StoreSight:
    opened = {
        one.name: int(one.stats.extra["breaker_opened"])
        for one in chain.stores
        if one.stats is not None and "breaker_opened" in one.stats.extra
    }
    now_open = frozenset(
        one.name
        for one in chain.stores
        if one.stats is not None and int(one.stats.extra.get("breaker_open", 0))
    )
    first = chain.stores[0]
    switches = chain.switch_overs + chain.all_aways
    return StoreSight(first.name, chain.in_use, switches, opened, now_open, first.detail)
