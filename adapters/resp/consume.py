# SPDX-License-Identifier: Apache-2.0
"""`try_consume` in the server: costs to pairs of integers, one script call, answers to decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from struct import Struct

from valkyrie.adapters.errors import ConsistencyError, StoreError
from valkyrie.adapters.gcra import UNITS_A_US, decision
from valkyrie.adapters.naming import SHARDS, bucket_key, owner_key, shard_of
from valkyrie.adapters.resp.client import RespClient
from valkyrie.adapters.resp.scripts import TAKE
from valkyrie.adapters.store import Decision
from valkyrie.control.cost import Cost

MOST_A_CALL = 256  # buckets: about a millisecond of the server's, in which it serves nobody else
_ASKED = Struct("<ddHH")
_CLOCK = Struct("<d")
_ANSWER = Struct("<BdH")
_NOT_OURS = 2


@dataclass(frozen=True, slots=True)
class Taking:
    """`n` tokens of a bucket (naming.py) wanted."""

    bucket: str
    cost: Cost
    n: int


Outcome = Decision | StoreError


class Consumer:
    """Takes tokens in one server or cluster. `store` is the backend's name in decisions."""

    def __init__(self, client: RespClient, appliance: str, store: str) -> None:
        self._client = client
        self._appliance = appliance
        self._store = store

    @cached_property
    def _groups(self) -> list[int]:
        """Of each shard the group that may share a call."""
        return [self._client.slot_group(owner_key(self._appliance, shard)) for shard in range(SHARDS)]

    def group_of(self, bucket: str) -> int:
        """Buckets of one group can be taken from in one call."""
        return self._groups[shard_of(bucket)]

    async def take(self, takings: Sequence[Taking]) -> list[Outcome]:
        """Decide each for itself, those of one bucket in order. What failed is in its place as the error that
        it would raise: a bad value is its own bucket's trouble, a lost reply that of the whole call.
        """
        groups: dict[int, list[int]] = {}
        for index, taking in enumerate(takings):
            groups.setdefault(self.group_of(taking.bucket), []).append(index)
        if len(groups) == 1:
            return await self._take_group(takings)
        parts = [[takings[index] for index in indices] for indices in groups.values()]
        found = await asyncio.gather(*map(self._take_group, parts))
        outcomes: dict[int, Outcome] = {}
        for indices, part in zip(groups.values(), found, strict=True):
            outcomes.update(zip(indices, part, strict=True))
        return [outcomes[index] for index in range(len(takings))]

    async def _take_group(self, takings: Sequence[Taking]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for start in range(0, len(takings), MOST_A_CALL):
            try:
                outcomes += await self._call(takings[start : start + MOST_A_CALL])
            except StoreError as error:  # the next call would most likely wait for as long, to fail too
                return outcomes + [error] * (len(takings) - start)
        return outcomes

    async def _call(self, takings: Sequence[Taking]) -> list[Outcome]:
        keys = [bucket_key(self._appliance, taking.bucket) for taking in takings]
        asked = b"".join(_pairs(taking.cost, taking.n) for taking in takings)
        reply = await self._client.script(TAKE, keys, [asked], repeatable=False)
        if not isinstance(reply, bytes) or len(reply) != _CLOCK.size + _ANSWER.size * len(takings):
            raise _misshapen(self._store)
        answers = _ANSWER.iter_unpack(memoryview(reply)[_CLOCK.size :])
        return [self._outcome(taking, *answer) for taking, answer in zip(takings, answers, strict=True)]

    def _outcome(self, taking: Taking, verdict: int, us: float, units: int) -> Outcome:
        if verdict == _NOT_OURS:
            return ConsistencyError(
                f"{self._store} has something else than a bucket under"
                f" {bucket_key(self._appliance, taking.bucket)}",
                "see what wrote there, then delete the key",
            )
        if not isfinite(us):
            return _misshapen(self._store)
        return decision(int(us) * UNITS_A_US + units, taking.cost, taking.n, verdict == 1, self._store)


def _misshapen(store: str) -> ConsistencyError:
    return ConsistencyError(
        f"{store} answered a call for tokens with something else than decisions",
        "see what answers at its address: its scripts are not Valkyrie's",
    )


def _pairs(cost: Cost, n: int) -> bytes:
    """Cost and tau as the script reads them. More than tau is refused, however much more it is."""
    units = min(cost.of(n), cost.tau + 1)
    cost_us, cost_rest = divmod(units, UNITS_A_US)
    tau_us, tau_rest = divmod(cost.tau, UNITS_A_US)
    return _ASKED.pack(cost_us, tau_us, cost_rest, tau_rest)
