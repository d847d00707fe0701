# SPDX-License-Identifier: Apache-2.0
"""Telling a store what was consumed elsewhere: its buckets are brought to at least the same debt.

A store is looked at first (n = 0) and the difference consumed, in whole tokens, so any store will do. What
callers took meanwhile comes on top, up to an empty bucket. A bucket that another process consumed on
the former store is known to that process alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import floor

from valkyrie.adapters.asked import cost_for
from valkyrie.adapters.errors import OutcomeUnknown
from valkyrie.adapters.hybrid.ledger import WORTH_S, Debt, Ledger, Name, Snapshot
from valkyrie.adapters.limit import MAX_TOKENS
from valkyrie.adapters.store import Decision, Request, StoreAdapter
from valkyrie.control.cost import UNITS_A_NS
from valkyrie.control.errors import InvalidInput

log = logging.getLogger(__name__)

PIECE = 250  # buckets a call, so that others at the store need not wait
TURNS = 4  # a bucket that callers empty meanwhile is tried again for what is left


@dataclass(frozen=True, slots=True)
class Carrier:
    ledger: Ledger
    clock: Callable[[], float]

    async def carry(self, snapshot: Snapshot, store: StoreAdapter) -> int:
        """Tell the store what the snapshot holds; how many buckets were raised. Raises StoreError."""
        debts = snapshot.debts(self.clock())
        raised = 0
        while piece := list(islice(debts, PIECE)):
            try:
                raised += await self._piece(piece, snapshot.spent, store)
            except InvalidInput as error:
                log.warning("%d buckets are not carried to %s: %s", len(piece), store.backend_name, error)
            except OutcomeUnknown as error:
                log.warning("%d buckets may not be carried to %s: %s", len(piece), store.backend_name, error)
            await asyncio.sleep(0)
        return raised

    async def _piece(self, piece: Sequence[Debt], spent: Mapping[Name, int], store: StoreAdapter) -> int:
        seen = await store.try_consume_many([Request(debt.key, debt.limit, 0) for debt in piece])
        now = self.clock()
        pairs = zip(piece, seen, strict=True)
        wanted = [
            (debt, min(look.remaining, missing(debt, spent.get(debt.name, 0), now, look)))
            for debt, look in pairs
        ]
        raised = 0
        for _ in range(TURNS):
            wanted = [(debt, tokens) for debt, tokens in wanted if tokens > 0]
            if not wanted:
                break
            asked = [Request(debt.key, debt.limit, tokens) for debt, tokens in wanted]
            done = await store.try_consume_many(asked)
            now = self.clock()
            left = []
            for (debt, tokens), decision in zip(wanted, done, strict=True):
                raised += decision.allowed
                self.ledger.note(debt.key, debt.limit, 0, decision, now)
                left.append((debt, 0 if decision.allowed else min(tokens, decision.remaining)))
            wanted = left
        return raised


def missing(debt: Debt, spent: int, now: float, look: Decision) -> int:
    """Tokens by which a bucket as it was looked at falls behind the debt as it is now: rounded up, against
    the sender, but for a hundredth, which is what clocks and replies under way make of a whole one.
    `spent` of them were taken there since the debt was known, and are no part of it.
    """
    cost = cost_for(debt.limit, debt.key)
    behind = floor((debt.full_at - now - look.reset_after) * 1e9) * UNITS_A_NS + cost.of(spent)
    if behind < WORTH_S * 1e9 * UNITS_A_NS:
        return 0
    behind -= cost.of(1) // 100
    return max(0, min(MAX_TOKENS, -((-behind << cost.shift) // cost.mult)))
