# SPDX-License-Identifier: Apache-2.0
"""Buckets in this process's memory, for when every store is away.

Their error: each process admits a whole limit by itself, so N processes admit up to N times as much. A bucket
begins with the debt that this process knows of, else full; of more than MOST buckets the one that was used
least recently is forgotten, and is full when it comes again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from valkyrie.adapters import gcra
from valkyrie.adapters.asked import cost_for
from valkyrie.adapters.hybrid.ledger import Ledger
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.naming import bucket_of
from valkyrie.adapters.store import Decision
from valkyrie.control.cost import UNITS_A_NS

MOST = 65_536
NAME = "local"
UNITS_A_S = UNITS_A_NS * 1_000_000_000


class LocalBuckets:
    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._tats: OrderedDict[str, int] = OrderedDict()  # by bucket, in time units

    def take(self, key: str, limit: Limit, n: int, ledger: Ledger, now: float) -> Decision:
        """As try_consume. `now` is the ledger's clock. Raises InvalidInput for a key that does not fit."""
        name = bucket_of(limit, key)
        cost = cost_for(limit, key)
        moment = int(now * UNITS_A_S)
        known = self._tats.get(name)
        level = int(ledger.left(key, limit, now) * UNITS_A_S) if known is None else max(0, known - moment)
        allowed, after = gcra.take(level, cost, n)
        self._tats[name] = moment + after
        self._tats.move_to_end(name)
        if len(self._tats) > self._most:
            self._tats.popitem(last=False)
        return replace(gcra.decision(after, cost, n, allowed, NAME), degraded=True)

    def __len__(self) -> int:
        return len(self._tats)
