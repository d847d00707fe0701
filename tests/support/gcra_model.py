# SPDX-License-Identifier: Apache-2.0
"""What a bucket may answer whose store has a clock of its own: two levels that enclose the true one."""

from __future__ import annotations

from dataclasses import dataclass

from valkyrie.adapters.gcra import decision, take
from valkyrie.adapters.store import Decision
from valkyrie.control.cost import UNITS_A_NS, Cost

SLACK_NS = 2_000_000  # by which a store's clock may go wrong between two calls: microseconds, an NTP slew


@dataclass
class Model:
    """One bucket. Times are ns of this process's clock, before and after a call."""

    cost: Cost
    low: int = 0
    high: int = 0
    asked: int = 0
    answered: int = 0

    def check(self, n: int, asked: int, answered: int, given: Decision) -> None:
        """Hold a decision against the reference, and follow it."""
        if self.answered:
            most = answered - self.asked + SLACK_NS
            least = max(0, asked - self.answered - SLACK_NS)
            self.low = max(0, self.low - most * UNITS_A_NS)
            self.high = max(0, self.high - least * UNITS_A_NS)
        self.asked, self.answered = asked, answered
        possible = {take(level, self.cost, n)[0] for level in (self.low, self.high)}
        assert given.allowed in possible, f"{n} tokens at {self}: {given}"
        if given.allowed:
            wanted = self.cost.of(n)
            self.low, self.high = self.low + wanted, min(self.high + wanted, self.cost.tau)
        else:
            self.low = max(self.low, self.cost.tau - self.cost.of(n))
        best = decision(self.low, self.cost, n, given.allowed, given.store)
        worst = decision(self.high, self.cost, n, given.allowed, given.store)
        assert worst.remaining <= given.remaining <= best.remaining, f"{n} tokens at {self}: {given}"
        assert best.reset_after <= given.reset_after <= worst.reset_after, f"{n} tokens at {self}: {given}"
        assert best.retry_after <= given.retry_after <= worst.retry_after, f"{n} tokens at {self}: {given}"
