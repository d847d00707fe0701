# SPDX-License-Identifier: Apache-2.0
"""The primary that Sentinels name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from valkyrie.adapters.errors import StoreConnectionError, StoreError
from valkyrie.adapters.resp.address import Address
from valkyrie.adapters.resp.errors import LinkLost, NoPrimary, connecting
from valkyrie.adapters.resp.link import Link, LinkMaker
from valkyrie.adapters.resp.login import Login
from valkyrie.adapters.resp.lookout import Lookout
from valkyrie.adapters.resp.node import Node
from valkyrie.adapters.resp.single import NodeMaker, Single

ASK_S = 1.0  # the sentinels may take to name it, when calls wait for it


@dataclass(frozen=True, slots=True)
class Watched:
    """A primary by the name that its sentinels have for it."""

    links: LinkMaker  # to the sentinels
    sentinels: Sequence[Address]
    master: str

    async def find(self) -> Address:
        """The primary's address by the first Sentinel that knows. All are asked at once: one may hang."""
        asked = [asyncio.create_task(self._find_by(sentinel)) for sentinel in self.sentinels]
        failures: list[str] = []
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    return await answer
                except (StoreError, LinkLost) as error:
                    failures.append(str(error))
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise StoreConnectionError(
            f"no sentinel names the primary of {self.master!r}: {'; '.join(failures)}"[:400],
            "check sentinel.nodes and sentinel.master",
        )

    async def _find_by(self, sentinel: Address) -> Address:
        link = await self.links.open(sentinel)
        try:
            (reply,) = await link.exchange([("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.master)])
        finally:
            await link.close()
        match reply:
            case [bytes(host), bytes(port)] if port.isdigit():
                return Address(host.decode(errors="replace"), int(port))
        raise StoreConnectionError(f"sentinel {sentinel} does not know it")


class Sentinel(Single):
    """The address is asked at each connect; when it changes, the old connections go."""

    def __init__(
        self,
        make: NodeMaker,
        links: LinkMaker,
        watched: Watched,
        database: int,
        wait_s: float,
        *,
        replicas: bool,
    ) -> None:
        super().__init__(make, links, Address(watched.master), database, replicas)
        self._node.where = f"the primary of {watched.master!r}"
        self._watched = watched
        self._lookout = Lookout(self._look_for_another, wait_s)

    @property
    def lookout(self) -> Lookout:
        return self._lookout

    def lost(self, node: Node) -> None:
        self._lookout.again()

    async def close(self) -> None:
        await self._lookout.close()
        await super().close()

    async def _open(self, login: Login | None) -> Link:
        address = await self._watched.find()
        await self._use(address)
        link = await self._links.open(address, login, database=self._database)
        try:
            (role,) = await link.exchange([("ROLE",)])
        except LinkLost as error:
            raise connecting(error, str(address)) from error
        if isinstance(role, list) and role[0] != b"master":
            await link.close()
            raise NoPrimary(f"{address} is no primary any more", "the sentinels have not agreed yet")
        return link

    async def _use(self, address: Address) -> None:
        """Another server has not failed yet, whatever its predecessor did."""
        if address != self._address:
            self._address = address
            self._node.breaker.reset()
            await self._node.pool.clear()

    async def _look_for_another(self) -> None:
        try:
            async with asyncio.timeout(ASK_S):
                address = await self._watched.find()
        except TimeoutError:
            raise StoreConnectionError("no sentinel answers") from None
        await self._use(address)
