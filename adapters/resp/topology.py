# SPDX-License-Identifier: Apache-2.0
"""Which node serves a key: what single servers, Sentinel and Cluster differ in."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from valkyrie.adapters.resp.address import Address, parse_endpoint
from valkyrie.adapters.resp.lookout import Lookout
from valkyrie.adapters.resp.node import Node

SLOTS = 16384


class Topology(Protocol):
    """Nodes are made as they are needed and live until the topology drops them."""

    @property
    def lookout(self) -> Lookout | None:
        """Where calls wait for a new primary; None where there will be none."""
        ...

    async def start(self) -> None:
        """Find out who serves what. Raises StoreError."""
        ...

    def primary(self, slot: int) -> Node:
        """Raises StoreUnavailable if nobody is known to serve it."""
        ...

    def replica(self, slot: int) -> Node | None:
        """A replica to read from, None if none is known."""
        ...

    def primaries(self) -> Collection[Node]: ...

    def nodes(self) -> Collection[Node]:
        """All that have or may have connections."""
        ...

    def slot(self, key: str | bytes) -> int:
        """0 where there are no slots."""
        ...

    def redirected(self, redirect: Redirect, asked: Node) -> Node:
        """The node that a MOVED or ASK names."""
        ...

    async def suspect(self, node: Node) -> None:
        """The node says that it is no primary any more, or that the cluster is another than we think."""
        ...

    def lost(self, node: Node) -> None:
        """A call to the node got no answer: look again in the background."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Redirect:
    """What MOVED and ASK say. The server that says it has run nothing."""

    ask: bool
    slot: int
    address: Address

    @classmethod
    def parse(cls, text: str, asked_host: str) -> Redirect | None:
        """From an error reply, None if it is none. A server that knows no name of the other leaves it out:
        then it is on the same host.
        """
        words = text.split()
        if len(words) < 3 or words[0] not in ("MOVED", "ASK") or not words[1].isdecimal():
            return None
        host, _, port = words[2].rpartition(":")
        if not port.isdecimal() or int(words[1]) >= SLOTS:
            return None
        bare = host.strip("[]") or asked_host
        shown = f"[{bare}]" if ":" in bare else bare
        return cls(words[0] == "ASK", int(words[1]), parse_endpoint(f"{shown}:{port}", 0))


def slot_of(key: str | bytes) -> int:
    """A key's slot in a cluster: of what stands between its first braces, if that is anything."""
    raw = key.encode() if isinstance(key, str) else key
    begin = raw.find(b"{")
    if begin >= 0:
        end = raw.find(b"}", begin + 1)
        if end > begin + 1:
            raw = raw[begin + 1 : end]
    return crc_hqx(raw, 0) % SLOTS
