# SPDX-License-Identifier: Apache-2.0
"""A single server, which may have replicas to read from."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from typing import Any, Protocol

from valkyrie.adapters.errors import StoreError, StoreUnavailable
from valkyrie.adapters.resp.address import Address, parse_endpoint
from valkyrie.adapters.resp.link import Link, LinkMaker
from valkyrie.adapters.resp.login import Login
from valkyrie.adapters.resp.lookout import Lookout
from valkyrie.adapters.resp.node import Node
from valkyrie.adapters.resp.pool import Opener
from valkyrie.adapters.resp.topology import Redirect

REPLICAS_S = 5.0  # how often replicas are looked up, at most
CLEAR_S = 1.0


class NodeMaker(Protocol):
    def __call__(self, where: str, opener: Opener, host: str = "") -> Node: ...


class Single:
    """One server at a fixed address, and its replicas if reads go there."""

    def __init__(
        self, make: NodeMaker, links: LinkMaker, address: Address, database: int, replicas: bool
    ) -> None:
        self._make = make
        self._links = links
        self._address = address
        self._database = database
        self._read_replicas = replicas
        self._node = make(str(address), self._open)
        self._replicas: dict[Address, Node] = {}
        self._looking: asyncio.Task[None] | None = None
        self._looked = -REPLICAS_S
        self._cleared = -CLEAR_S

    @property
    def lookout(self) -> Lookout | None:
        return None

    async def start(self) -> None:
        if self._read_replicas:
            await self._look()

    def primary(self, slot: int) -> Node:
        return self._node

    def replica(self, slot: int) -> Node | None:
        now = asyncio.get_running_loop().time()
        if now - self._looked > REPLICAS_S and (self._looking is None or self._looking.done()):
            self._looked = now
            self._looking = asyncio.create_task(self._look())
        serving = [node for node in self._replicas.values() if node.breaker.admits]
        return random.choice(serving) if serving else None  # noqa: S311 spreads reads, guards nothing

    def primaries(self) -> Collection[Node]:
        return (self._node,)

    def nodes(self) -> Collection[Node]:
        return (self._node, *self._replicas.values())

    def slot(self, key: str | bytes) -> int:
        return 0

    def redirected(self, redirect: Redirect, asked: Node) -> Node:
        raise StoreUnavailable(
            f"{asked.where} is part of a cluster and sends us to {redirect.address}", "set cluster_mode: true"
        )

    async def suspect(self, node: Node) -> None:
        """The address may mean another server by now: connect anew, at most once in CLEAR_S."""
        now = asyncio.get_running_loop().time()
        if now - self._cleared > CLEAR_S:
            self._cleared = now
            await node.pool.clear()

    def lost(self, node: Node) -> None:
        """The next connection finds the server; there is nothing to learn before."""

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for node in self.nodes():
            await node.pool.close()

    async def _open(self, login: Login | None) -> Link:
        return await self._links.open(self._address, login, database=self._database)

    async def _look(self) -> None:
        """Ask the primary for its replicas; while it does not answer, those known stay."""
        deadline = asyncio.get_running_loop().time() + 1.0
        try:
            (info,) = await self._node.exchange([("INFO", "replication")], repeatable=True, deadline=deadline)
        except StoreError:
            return
        found = set(_replicas_in(info)) if isinstance(info, bytes) else set()
        for address in self._replicas.keys() - found:
            await self._replicas.pop(address).pool.close()
        for address in found - self._replicas.keys():
            self._replicas[address] = self._make(f"replica {address}", self._opener(address))

    def _opener(self, address: Address) -> Opener:
        async def opener(login: Login | None) -> Link:
            return await self._links.open(address, login, database=self._database)

        return opener


def _replicas_in(info: bytes) -> list[Address]:
    """The replicas that are in step, from INFO replication: `slave0:ip=..,port=..,state=online,...`."""
    found = []
    for line in info.decode(errors="replace").splitlines():
        name, _, text = line.partition(":")
        if name.startswith("slave") and name[5:].isdecimal():
            fields: dict[str, Any] = dict(part.partition("=")[::2] for part in text.split(","))
            host = fields.get("ip", "")
            if fields.get("state") == "online" and host and fields.get("port", "").isdecimal():
                shown = f"[{host}]" if ":" in host else host
                found.append(parse_endpoint(f"{shown}:{fields['port']}", 0))
    return found
