# SPDX-License-Identifier: Apache-2.0
"""A cluster: which node serves which slot, learned from the nodes themselves.

The drivers' own cluster clients send a command again after a connection broke, whatever the command is.
This router only routes; what is repeated, client.py decides.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from valkyrie.adapters.errors import StoreConnectionError, StoreError, StoreUnavailable
from valkyrie.adapters.resp.address import Address
from valkyrie.adapters.resp.errors import NoPrimary, translate
from valkyrie.adapters.resp.link import Link, LinkMaker
from valkyrie.adapters.resp.login import Login
from valkyrie.adapters.resp.lookout import Lookout
from valkyrie.adapters.resp.node import Node
from valkyrie.adapters.resp.pool import Opener
from valkyrie.adapters.resp.single import NodeMaker
from valkyrie.adapters.resp.topology import SLOTS, Redirect, slot_of

ASK_S = 1.0  # the nodes may take to describe it
HEDGE_S = 0.05  # after which the next one is asked too
MAX_NODES = 1000


@dataclass(slots=True)
class _Map:
    """Who serves what: an address for each slot, and the replicas of each primary."""

    slots: list[Address | None] = field(default_factory=lambda: [None] * SLOTS)
    replicas: dict[Address, list[Address]] = field(default_factory=dict)

    def primaries(self) -> set[Address]:
        return {address for address in self.slots if address is not None}

    def all(self) -> set[Address]:
        return self.primaries().union(*self.replicas.values())


class Cluster:
    """Looks again after each failure and MOVED, in the background."""

    def __init__(
        self,
        make: NodeMaker,
        links: LinkMaker,
        seed: Address,
        timeout_s: float,
        wait_s: float,
        *,
        replicas: bool,
    ) -> None:
        self._make = make
        self._links = links
        self._seed = seed
        self._ask_s = min(timeout_s, ASK_S)
        self._read_replicas = replicas
        self._map = _Map()
        self._nodes: dict[tuple[Address, bool], Node] = {}
        self._lookout = Lookout(self._refresh, wait_s)

    @property
    def lookout(self) -> Lookout:
        return self._lookout

    async def start(self) -> None:
        await self._refresh()

    def slot(self, key: str | bytes) -> int:
        return slot_of(key)

    def primary(self, slot: int) -> Node:
        address = self._map.slots[slot]
        if address is None:
            self._lookout.again()
            raise NoPrimary(f"no node of the cluster serves slot {slot}", "see CLUSTER INFO")
        return self._node(address)

    def replica(self, slot: int) -> Node | None:
        primary = self._map.slots[slot]
        known = self._map.replicas.get(primary, []) if primary is not None else []
        serving = [node for node in (self._node(at, replica=True) for at in known) if node.breaker.admits]
        return random.choice(serving) if serving else None  # noqa: S311 spreads reads, guards nothing

    def primaries(self) -> Collection[Node]:
        return [self._node(address) for address in self._map.primaries()]

    def nodes(self) -> Collection[Node]:
        return list(self._nodes.values())

    def redirected(self, redirect: Redirect, asked: Node) -> Node:
        if not redirect.ask:
            self._map.slots[redirect.slot] = redirect.address
            self._lookout.again()
        return self._node(redirect.address)

    async def suspect(self, node: Node) -> None:
        self._lookout.again()

    def lost(self, node: Node) -> None:
        self._lookout.again()

    async def close(self) -> None:
        await self._lookout.close()
        for node in self._nodes.values():
            await node.pool.close()

    def _node(self, address: Address, *, replica: bool = False) -> Node:
        found = self._nodes.get((address, replica))
        if found is None:
            if len(self._nodes) >= MAX_NODES:
                raise StoreUnavailable(f"the cluster names more than {MAX_NODES} nodes")
            found = self._make(str(address), self._opener(address, replica=replica), address.host)
            self._nodes[address, replica] = found
        return found

    def _opener(self, address: Address, *, replica: bool) -> Opener:
        async def opener(login: Login | None) -> Link:
            return await self._links.open(address, login, replica=replica)

        return opener

    async def _refresh(self) -> None:
        """Learn the topology from the first node that tells it. Raises an error if none does in time."""
        known = [address for address in self._map.all() if address != self._seed]
        random.shuffle(known)
        known.sort(key=self._is_suspect)
        candidates = [*known, self._seed] if self._is_suspect(self._seed) else [self._seed, *known]
        deadline = asyncio.get_running_loop().time() + self._ask_s
        self._map = await self._first_told(candidates, deadline)
        await self._forget_gone()

    async def _first_told(self, candidates: Sequence[Address], deadline: float) -> _Map:
        """Ask one after the other, and the next as well when one lets us wait: it may hang."""
        left = deque(candidates)
        asked: set[asyncio.Task[_Map]] = set()
        last: StoreError = StoreConnectionError("the cluster has no nodes")
        try:
            while left or asked:
                if left:
                    asked.add(asyncio.create_task(self._ask(left.popleft(), deadline)))
                done, asked = await asyncio.wait(
                    asked, timeout=HEDGE_S if left else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    try:
                        return task.result()
                    except StoreError as error:
                        last = error
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise last

    def _is_suspect(self, address: Address) -> bool:
        node = self._nodes.get((address, False))
        return node is not None and node.breaker.suspicious

    async def _ask(self, address: Address, deadline: float) -> _Map:
        node = self._node(address)
        (reply,) = await node.exchange([("CLUSTER", "SLOTS")], repeatable=True, deadline=deadline)
        if isinstance(reply, Exception):
            raise translate(str(reply), node.where)
        found = _parse(reply, address.host)
        if not found.primaries():
            raise StoreUnavailable(f"{address} knows no node that serves slots", "see CLUSTER INFO")
        return found

    async def _forget_gone(self) -> None:
        keep = self._map.all() | {self._seed}
        for place in [place for place in self._nodes if place[0] not in keep]:
            await self._nodes.pop(place).pool.close()


def _parse(reply: Any, asked_host: str) -> _Map:
    """From CLUSTER SLOTS: ranges with their primary and replicas, each `[host, port, ...]`."""
    made = _Map()
    for begin, end, primary, *replicas in _ranges(reply):
        address = _address(primary, asked_host)
        made.slots[begin : end + 1] = [address] * (end + 1 - begin)
        made.replicas[address] = [_address(replica, asked_host) for replica in replicas]
    return made


def _ranges(reply: Any) -> Iterable[Any]:
    """The entries that make sense: a server may tell anything."""
    for entry in reply if isinstance(reply, list) else ():
        match entry:
            case [int(begin), int(end), *nodes] if nodes and 0 <= begin <= end < SLOTS:
                if all(
                    isinstance(node, list) and len(node) >= 2 and isinstance(node[1], int) for node in nodes
                ):
                    yield entry


def _address(entry: Any, asked_host: str) -> Address:
    """An empty or missing host means the one that was asked; `?` means that it knows none."""
    host = entry[0].decode(errors="replace") if isinstance(entry[0], bytes) else ""
    return Address(asked_host if host in ("", "?") else host, int(entry[1]))
