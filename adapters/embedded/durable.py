# SPDX-License-Identifier: Apache-2.0
"""`DurableStore` on the file: the appliance's buckets and documents, and who may write them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from valkyrie.adapters.durable import BucketLevel, DurableStore, Owner
from valkyrie.adapters.embedded.file import StoreFile
from valkyrie.adapters.embedded.ownership import Ownership
from valkyrie.adapters.embedded.writer import Act
from valkyrie.adapters.stats import OperationMeter
from valkyrie.control.errors import InvalidInput

BATCH = 250  # buckets a transaction: those who consume meanwhile wait a few milliseconds at most
PAGE = 1000  # buckets read at once
MAX_DOCUMENT = 64 << 20


class EmbeddedDurable(DurableStore):
    """The owner's token is checked in the transaction that writes."""

    _file: StoreFile
    _meter: OperationMeter

    def _ownership(self, act: Act) -> Ownership:
        return Ownership(act.connection, self._file.appliance, act.now)

    async def claim(self, node: str, token: str, *, takeover: bool = False, silent_s: float = 10.0) -> Owner:
        with self._meter.timed("claim"):
            return await self._file.run(
                lambda act: self._ownership(act).claim(node, token, takeover, silent_s)
            )

    async def renew(self, token: str) -> None:
        with self._meter.timed("renew"):
            await self._file.run(lambda act: self._ownership(act).renew(token))

    async def release(self, token: str) -> None:
        with self._meter.timed("release"):
            await self._file.run(lambda act: self._ownership(act).release(token))

    async def owner(self) -> Owner | None:
        with self._meter.timed("owner"):
            return await self._file.run(lambda act: self._ownership(act).owner(), writes=False)

    async def write_buckets(self, buckets: Sequence[BucketLevel], token: str) -> None:
        with self._meter.timed("write_buckets"):

            def job(act: Act) -> None:
                self._ownership(act).check(token)
                act.buckets.raise_to(self._file.appliance, buckets)

            await self._file.run(job, rows=len(buckets))

    async def drop_buckets(self, names: Sequence[str], token: str) -> None:
        with self._meter.timed("drop_buckets"):

            def job(act: Act) -> None:
                self._ownership(act).check(token)
                act.buckets.drop(self._file.appliance, names)

            await self._file.run(job, rows=len(names))

    async def buckets(self) -> AsyncIterator[Sequence[BucketLevel]]:
        after: str | None = ""
        while after is not None:
            begin = after
            with self._meter.timed("buckets"):
                levels, after = await self._file.run(
                    lambda act, begin=begin: act.buckets.page(self._file.appliance, begin, PAGE),  # type: ignore[misc]
                    writes=False,
                    rows=PAGE,
                )
            if levels:
                yield levels

    async def put_document(self, name: str, content: bytes, token: str) -> None:
        with self._meter.timed("put_document"):
            if len(content) > MAX_DOCUMENT:
                raise InvalidInput(f"a document of {len(content)} bytes", f"at most {MAX_DOCUMENT}", name)
            await self._file.run(
                lambda act: self._ownership(act).put_document(name, content, token), size=len(content)
            )

    async def get_document(self, name: str) -> bytes | None:
        with self._meter.timed("get_document"):
            return await self._file.run(lambda act: self._ownership(act).document(name), writes=False)

    @property
    def batch(self) -> int:
        return BATCH
