# SPDX-License-Identifier: Apache-2.0
"""The sync's store while it is migrated: one store that counts, and another that is told the same."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from valkyrie.adapters.durable import BucketLevel, Owner
from valkyrie.adapters.errors import ConsistencyError, StoreError
from valkyrie.adapters.secrets import Secrets
from valkyrie.adapters.settings import StoreSettings
from valkyrie.control.durable.opening import Opened, make_store

log = logging.getLogger(__name__)

PATIENCE_S = 2.0  # with the other store, in one call
PAUSE_S = 2.0  # after it failed; what it is not told until then, the comparison mends


@dataclass(frozen=True, slots=True)
class Route:
    """Where state is kept in place of the store that the settings name; `secondary` is told as well."""

    primary: str
    secondary: str | None


class Dual:
    """A durable store. The secondary fails nothing; `wanted` says whether it is to be told still."""

    def __init__(self, primary: Opened, make: Callable[[], Opened], wanted: Callable[[], bool]) -> None:
        self._primary = primary
        self._make = make
        self._wanted = wanted
        self._secondary: Opened | None = None
        self._claim: tuple[str, str, float] | None = None  # node, token, and after what silence
        self._owned = False
        self._refused = False  # it was said that another owns the secondary
        self._again = float("-inf")

    async def start(self) -> None:
        await self._primary.start()

    async def close(self) -> None:
        secondary, self._secondary = self._secondary, None
        if secondary is not None:
            with suppress(StoreError):
                await secondary.close()
        await self._primary.close()

    async def claim(self, node: str, token: str, *, takeover: bool = False, silent_s: float = 10.0) -> Owner:
        owner = await self._primary.claim(node, token, takeover=takeover, silent_s=silent_s)
        self._claim, self._owned = (node, token, silent_s), False
        await self._also(lambda store: _nothing())
        return owner

    async def renew(self, token: str) -> None:
        await self._primary.renew(token)
        await self._also(lambda store: store.renew(token))

    async def release(self, token: str) -> None:
        await self._primary.release(token)
        await self._also(lambda store: store.release(token))
        self._owned = False

    async def owner(self) -> Owner | None:
        return await self._primary.owner()

    async def write_buckets(self, buckets: Sequence[BucketLevel], token: str) -> None:
        await self._primary.write_buckets(buckets, token)
        await self._also(lambda store: store.write_buckets(buckets, token))

    async def drop_buckets(self, names: Sequence[str], token: str) -> None:
        await self._primary.drop_buckets(names, token)
        await self._also(lambda store: store.drop_buckets(names, token))

    def buckets(self) -> AsyncIterator[Sequence[BucketLevel]]:
        return self._primary.buckets()

    async def put_document(self, name: str, content: bytes, token: str) -> None:
        await self._primary.put_document(name, content, token)
        await self._also(lambda store: store.put_document(name, content, token))

    async def get_document(self, name: str) -> bytes | None:
        return await self._primary.get_document(name)

    @property
    def batch(self) -> int:
        return self._primary.batch

    async def _also(self, tell: Callable[[Opened], Awaitable[None]]) -> None:
        if not self._wanted() or time.monotonic() < self._again:
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                await tell(await self._ready())
        except ConsistencyError as error:
            self._owned = False
            self._failed(error)
        except (StoreError, TimeoutError) as error:
            self._failed(error)

    async def _ready(self) -> Opened:
        if self._secondary is None:
            made = self._make()
            try:
                await made.start()
            except BaseException:
                with suppress(StoreError):
                    await made.close()
                raise
            self._secondary = made
        if self._claim is not None and not self._owned:
            await self._own(self._secondary, *self._claim)
        return self._secondary

    async def _own(self, secondary: Opened, node: str, token: str, silent_s: float) -> None:
        """Also after a takeover of the primary no living owner is driven out: what is not told until it is
        silent, the comparison mends.
        """
        try:
            await secondary.claim(node, token, silent_s=silent_s)
        except ConsistencyError as error:
            if not self._refused:
                log.warning("the other store of the migration is not told: %s", error)
            self._refused = True
            raise
        self._owned, self._refused = True, False

    def _failed(self, error: BaseException) -> None:
        self._again = time.monotonic() + PAUSE_S
        log.debug("the other store of the migration is not told: %s", error)


async def _nothing() -> None:
    return


def make_routed(
    route: Callable[[], Route | None], settings: StoreSettings, appliance: str, secrets: Secrets
) -> Opened:
    """The store of the settings, or as the route has it, not started."""
    given = route()
    if given is None:
        return make_store(settings, appliance, secrets)
    primary = make_store(settings, appliance, secrets, given.primary)
    other = given.secondary
    if other is None:
        return primary
    return Dual(primary, lambda: make_store(settings, appliance, secrets, other), lambda: route() == given)
