# SPDX-License-Identifier: Apache-2.0
"""One client for Redis and Valkey: single server, Sentinel or Cluster behind the same few methods."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from valkyrie.adapters.errors import StoreConnectionError, StoreUnavailable
from valkyrie.adapters.resp.commands import eval_of, evalsha_of, key_of
from valkyrie.adapters.resp.connect import logins_of, topology_of
from valkyrie.adapters.resp.errors import UnknownScript
from valkyrie.adapters.resp.link import Driver, Word
from valkyrie.adapters.resp.node import Node
from valkyrie.adapters.resp.retry import Retry
from valkyrie.adapters.resp.rotate import Rotation
from valkyrie.adapters.resp.router import Router
from valkyrie.adapters.secrets import Secrets
from valkyrie.adapters.settings import RespSettings

if TYPE_CHECKING:
    from valkyrie.adapters.resp.scripts import Script

__all__ = ["RespClient", "Word"]


class RespClient:
    """Replies are as the server sent them (RESP2): bytes, int, None, lists of these; text is not decoded.
    All methods raise StoreError. A call takes at most settings.timeout_ms, with all its repetitions; when a
    cluster or sentinels lose a primary, once more that and settings.failover_wait_ms.

    `repeatable` says whether the call may be made twice. Such a call is tried again (settings.max_retries)
    when a connection or a reply is lost. Another is sent at most once, and when no answer comes
    OutcomeUnknown is raised; what the server refused to run (MOVED, NOSCRIPT, READONLY...) counts as not
    sent.
    """

    def __init__(
        self, driver: Driver, settings: RespSettings, secrets: Secrets, *, read_replicas: bool = False
    ) -> None:
        self._driver = driver
        self._settings = settings
        self._secrets = secrets
        self._read_replicas = read_replicas
        self._router: Router | None = None
        self._unwatch: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Get the password, and find the servers. Raises StoreError; then it may be called again."""
        settings = self._settings
        timeout_s = settings.timeout_ms / 1000
        logins = await logins_of(settings, self._secrets)
        topology = topology_of(self._driver, settings, logins, replicas=self._read_replicas)
        rotation = Rotation(logins.server, topology, timeout_s)
        unwatch = rotation.watch(self._secrets, settings.credential)
        try:
            await topology.start()
        except BaseException:
            unwatch()
            await topology.close()
            raise
        clock = asyncio.get_running_loop().time
        retry = Retry(settings.max_retries, asyncio.sleep, random.random, clock)
        self._router, self._unwatch = Router(topology, retry, clock, timeout_s), unwatch

    async def close(self) -> None:
        """Let go of the connections; calls under way end first. Again: nothing."""
        router, self._router = self._router, None
        if router is not None:
            self._unwatch()
            await router.topology.close()

    async def run(self, *command: Word, repeatable: bool, replica: bool = False) -> Any:
        """One command. Its key is the second word (EVAL, EVALSHA: the fourth), which picks the node of a
        cluster; PING, TIME, INFO, CONFIG and the like go to any primary. `replica`: a replica may answer.
        """
        slot = self._slot(key_of(command))
        (reply,) = await self._ready.send(slot, [command], repeatable=repeatable, replica=replica)
        return reply

    async def script(
        self, script: Script, keys: Sequence[str], args: Sequence[Word], *, repeatable: bool
    ) -> Any:
        """EVALSHA; where the server does not know the script, EVAL. In a cluster all keys share a slot."""
        slot = self._slot(keys[0] if keys else None)
        try:
            (reply,) = await self._ready.send(slot, [evalsha_of(script, keys, args)], repeatable=repeatable)
        except UnknownScript:
            (reply,) = await self._ready.send(slot, [eval_of(script, keys, args)], repeatable=repeatable)
        return reply

    async def pipeline(self, commands: Sequence[Sequence[Word]], *, repeatable: bool) -> list[Any]:
        """Many commands in one write to each node; replies in order. Not atomic. After all have been
        answered, the first error is raised.
        """
        parts: dict[Node, list[int]] = {}
        slots = [self._slot(key_of(command)) for command in commands]
        for index, slot in enumerate(slots):
            parts.setdefault(self._ready.pick(slot), []).append(index)
        replies: list[Any] = [None] * len(commands)

        async def send(part: list[int]) -> None:
            own = [commands[index] for index in part]
            answers = await self._ready.send(slots[part[0]], own, repeatable=repeatable)
            for index, answer in zip(part, answers, strict=True):
                replies[index] = answer

        done = await asyncio.gather(*map(send, parts.values()), return_exceptions=True)
        for failure in done:
            if failure is not None:
                raise failure
        return replies

    async def transaction(self, commands: Sequence[Sequence[Word]], *, repeatable: bool) -> list[Any]:
        """MULTI ... EXEC on one node: all keys share a slot. When one command cannot be queued, none runs."""
        slot = self._slot(key_of(commands[0]))
        whole = [("MULTI",), *commands, ("EXEC",)]
        replies: list[Any] = (await self._ready.send(slot, whole, repeatable=repeatable, whole=True))[-1]
        return replies

    async def scan(self, match: str, count: int = 1000) -> AsyncIterator[list[str]]:
        """Keys by pattern on every primary, in pieces; some may come twice, new ones not at all."""
        router = self._ready
        for node in list(router.topology.primaries()):
            cursor = b"0"
            while True:
                command = ("SCAN", cursor, "MATCH", match, "COUNT", count)
                ((cursor, found),) = await router.on_node(node, [command])
                if found:
                    yield [key.decode(errors="replace") for key in found]
                if cursor == b"0":
                    break

    async def page(self, match: str, at: str, count: int = 1000) -> tuple[list[str], str | None]:
        """A piece of `scan` from a place that the piece before gave, "" at first; None: that was the last. A
        place is good while its server runs; where that is unknown, it is the beginning.
        """
        router = self._ready
        nodes = sorted(router.topology.primaries(), key=lambda node: node.where)
        if not nodes:
            raise StoreUnavailable("no primary of the cluster is known", "see CLUSTER INFO")
        where, _, cursor = at.rpartition(" ")
        index = next((index for index, node in enumerate(nodes) if node.where == where), -1)
        index, cursor = (0, "0") if index < 0 else (index, cursor)
        command = ("SCAN", cursor, "MATCH", match, "COUNT", count)
        ((following, found),) = await router.on_node(nodes[index], [command])
        keys = [key.decode(errors="replace") for key in found]
        if following != b"0":
            return keys, f"{nodes[index].where} {following.decode()}"
        return keys, f"{nodes[index + 1].where} 0" if index + 1 < len(nodes) else None

    async def on_primaries(self, *command: Word) -> list[Any]:
        """A repeatable command on each primary. Raises the first error."""
        router = self._ready
        nodes = list(router.topology.primaries())
        found = await asyncio.gather(
            *(router.on_node(node, [command]) for node in nodes), return_exceptions=True
        )
        replies = []
        for answer in found:
            if isinstance(answer, BaseException):
                raise answer
            replies += answer
        return replies

    def slot_group(self, key: str) -> int:
        """Keys of one group may share a script call or transaction: the slot in a cluster, else 0."""
        return self._ready.topology.slot(key)

    @property
    def connections(self) -> int:
        """Open now."""
        return sum(node.pool.connections for node in self._nodes())

    @property
    def breakers_opened(self) -> int:
        """How often a circuit breaker opened, since start."""
        return sum(node.breaker.opened for node in self._nodes())

    @property
    def breakers_open(self) -> int:
        """How many are open now."""
        return sum(node.breaker.open for node in self._nodes())

    def _nodes(self) -> Sequence[Node]:
        return () if self._router is None else list(self._router.topology.nodes())

    @property
    def _ready(self) -> Router:
        if self._router is None:
            raise StoreConnectionError(f"{self._driver.name} is not started", "await start() first")
        return self._router

    def _slot(self, key: str | bytes | None) -> int | None:
        return None if key is None else self._ready.topology.slot(key)
