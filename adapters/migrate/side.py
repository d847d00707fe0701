# SPDX-License-Identifier: Apache-2.0
"""What a migration needs of a store beside StoreAdapter and DurableStore: to read and write it whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.errors import ConsistencyError

T = TypeVar("T")

BUCKETS_AT_ONCE = 250  # in one call: others at the store wait a millisecond
VALUES_AT_ONCE = 100
BEGINNING = ""  # of pages


@dataclass(frozen=True, slots=True)
class Value:
    """What `set` wrote, decoded. `left_ms`: until it expires; None: it stays."""

    content: bytes
    left_ms: int | None


Found = Value | ConsistencyError | None  # an error: something is there that cannot be read


class Side(Protocol):
    """One store of a migration, of one appliance. Nothing here asks who the owner is. All raise StoreError.

    Pages: a piece and the place of the next, None after the last. What changes meanwhile may come twice.
    """

    async def bucket_page(self, at: str) -> tuple[Sequence[BucketLevel], str | None]: ...

    async def levels(self, names: Sequence[str]) -> list[int]:
        """0 for a bucket that is full."""
        ...

    async def raise_buckets(self, buckets: Sequence[BucketLevel]) -> None:
        """To at least these levels from now."""
        ...

    async def forget_buckets(self, names: Sequence[str]) -> None: ...

    async def key_page(self, at: str) -> tuple[Sequence[str], str | None]:
        """Keys of values."""
        ...

    async def values(self, keys: Sequence[str]) -> list[Found]: ...

    async def put_values(self, values: Sequence[tuple[str, Value | None]]) -> None:
        """None deletes."""
        ...

    async def documents(self) -> list[str]: ...

    async def document(self, name: str) -> bytes | None: ...

    async def put_document(self, name: str, content: bytes) -> None: ...

    async def drop_document(self, name: str) -> None: ...

    async def count(self) -> int:
        """Buckets and values, about."""
        ...

    async def wipe(self) -> int:
        """Delete a piece of all that is this appliance's, documents and owner included, nobody else's; how
        much. 0: nothing is left.
        """
        ...


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
