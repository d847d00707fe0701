# SPDX-License-Identifier: Apache-2.0
"""What came of the demo's traffic, against what must come of it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from valkyrie.control.lab.scenario import Stream

TOLERANCE = 0.01
HEADINGS = ("LIMIT", "OFFERED", "PASSED", "DROPPED", "EXPECTED", "DEVIATION", "")


@dataclass(frozen=True)
class Row:
    """Packets of one kind of traffic.

    `offered` is by the sender, `passed` counted behind XDP, `dropped` by the appliance's own
    counters (None where no limit counts), `expected` to pass.
    """

    name: str
    offered: int
    passed: int
    dropped: int | None
    expected: float

    @property
    def deviation(self) -> float:
        """Of what passed, as a share of what was expected."""
        return self.passed / self.expected - 1 if self.expected else float(self.passed > 0)

    @property
    def unaccounted(self) -> float:
        """Packets that neither passed nor were counted as dropped, as a share of the offered."""
        if self.dropped is None or not self.offered:
            return 0.0
        return abs(self.offered - self.passed - self.dropped) / self.offered

    @property
    def ok(self) -> bool:
        return self.offered > 0 and abs(self.deviation) <= TOLERANCE and self.unaccounted <= TOLERANCE

    def cells(self) -> tuple[str, ...]:
        """The row in the order of HEADINGS."""
        numbers = (
            f"{self.offered:,}",
            f"{self.passed:,}",
            "" if self.dropped is None else f"{self.dropped:,}",
        )
        return (
            self.name,
            *numbers,
            f"{self.expected:,.0f}",
            f"{self.deviation:+.2%}",
            "ok" if self.ok else "WRONG",
        )


def rows(
    stream: Stream,
    *,
    seconds: float,
    offered: int,
    passed: int,
    counters: Mapping[str, Any] | None,
    banned: int,
) -> list[Row]:
    """The rows of a stream; `counters` are its limit's, `banned` what bans by limits dropped."""
    bans = "--ban" in stream.limit
    dropped = None if counters is None else int(counters["dropped"]) + (banned if bans else 0)
    made = [Row(stream.name, offered, passed, dropped, stream.expected(seconds, offered))]
    if stream.shadow is not None and counters is not None:
        would_drop = int(counters["shadow_dropped"])
        expected = stream.shadow(seconds, offered)
        made.append(Row(f"{stream.name} (would)", offered, offered - would_drop, would_drop, expected))
    return made
