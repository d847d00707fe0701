# SPDX-License-Identifier: Apache-2.0
"""What a store offers beside `StoreAdapter` when it can keep the appliance's state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

MAX_LEVEL = 1 << 64  # units: nine years, more than any bucket; what another program wrote may be more


@dataclass(frozen=True, slots=True)
class BucketLevel:
    """A bucket (naming.py) and how many time units, of 1/64 ns, it is short of full now."""

    name: str
    level: int


@dataclass(frozen=True, slots=True)
class Owner:
    """Who syncs under the appliance's name. `token` is random to each claim; `node` is for people."""

    token: str
    node: str
    epoch: int  # rises with every claim
    silent_s: float  # since it was last heard of, by the store's clock


class DurableStore(Protocol):
    """Levels are relative to now and the store reckons by a clock of its own, so that two machines' clocks
    never meet. Writes carry the owner's token and are refused whole (ConsistencyError) if another has
    claimed the name since; the check and the write are one atomic act in the store, shard by shard.
    All raise StoreError.
    """

    async def claim(self, node: str, token: str, *, takeover: bool = False, silent_s: float = 10.0) -> Owner:
        """Become the owner. Raises OwnedByAnother naming the present one, unless it has the same token, has
        been silent for `silent_s`, or `takeover` is given.
        """
        ...

    async def renew(self, token: str) -> None:
        """Say that the owner is alive. Raises ConsistencyError if it is the owner no more."""
        ...

    async def release(self, token: str) -> None:
        """Stop being the owner, so that another need not wait. Nothing if it is not."""
        ...

    async def owner(self) -> Owner | None: ...

    async def write_buckets(self, buckets: Sequence[BucketLevel], token: str) -> None:
        """Raise each bucket's TAT to its level from now: never lower it, since an application may have
        consumed there in the meantime. May be repeated. Few enough a call (see `batch`) that others need not
        wait.
        """
        ...

    async def drop_buckets(self, names: Sequence[str], token: str) -> None:
        """Forget buckets that were reset, or whose limit is no more."""
        ...

    def buckets(self) -> AsyncIterator[Sequence[BucketLevel]]:
        """All buckets that are short of full, in pieces; one that changes meanwhile may come twice."""
        ...

    async def put_document(self, name: str, content: bytes, token: str) -> None:
        """Write a document (at most 64 MiB) of the appliance's: `state`, `counters`."""
        ...

    async def get_document(self, name: str) -> bytes | None: ...

    @property
    def batch(self) -> int:
        """How many buckets to hand to write_buckets and drop_buckets at most."""
        ...
