# SPDX-License-Identifier: Apache-2.0
"""What `try_consume` holds a key against: a limit's figures, and which bucket of it a key means.

Costs are those of the kernel's table (control/cost.py), in time units of 1/64 ns, so that every store
answers alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from valkyrie.adapters.overrides import Overrides
from valkyrie.control.cost import Cost, cost_of
from valkyrie.control.errors import InvalidInput
from valkyrie.control.key import ID, KeySpec
from valkyrie.control.limits import check_name
from valkyrie.control.units import parse_burst, parse_rate

MAX_TOKENS = (1 << 31) - 1  # one call may ask for, so that no product leaves 64 bits; the kernel asks less


@dataclass(frozen=True, slots=True)
class Limit:
    """Rate and burst for calls. `declared` is a limit of the appliance's ruleset: its `key` says what a
    key of it looks like, and packets take from the same buckets. Without it the limit is the caller's own:
    its buckets are named by `name`, its keys are any text, rate and burst are what the caller says.
    """

    name: str
    cost: Cost
    declared: bool = False
    key: KeySpec = ID
    uid: int = 0  # of a declared limit, in this host's kernel; 0: not known
    overrides: Overrides | None = None

    @classmethod
    def of(cls, name: str, rate: str, burst: str | None = None) -> Limit:
        """A caller's own limit: `Limit.of("login", "10/m", "3")`. Raises InvalidInput naming the word."""
        for word, what in ((name, "name"), (rate, "rate"), ("" if burst is None else burst, "burst")):
            if not isinstance(word, str):
                raise InvalidInput(
                    f"the {what} {word!r} is no text", 'as Limit.of("login", "10/m", "3")', what
                )
        parsed = parse_rate(rate)
        tokens = None if burst is None else parse_burst(burst, parsed.measure)
        return cls(check_name(name), cost_of(parsed, tokens))


class LimitBook(Protocol):
    """Where limits are looked up by name."""

    async def limit(self, name: str) -> Limit:
        """The declared limit. Raises NotFound for a name that there is not."""
        ...

    def forget(self, name: str) -> None:
        """What is known of it has shown to be old: look it up anew when it is asked for again."""
        ...
