# SPDX-License-Identifier: Apache-2.0
"""From a slot to a reply: picks the node, follows redirects, repeats what may be repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from valkyrie.adapters.errors import StoreConnectionError, StoreError, StoreUnavailable
from valkyrie.adapters.resp.errors import NoPrimary, code_of, translate
from valkyrie.adapters.resp.link import Command
from valkyrie.adapters.resp.node import Node
from valkyrie.adapters.resp.retry import Retry
from valkyrie.adapters.resp.topology import Redirect, Topology

MAX_REDIRECTS = 5
NOBODY = ""  # whom calls wait for that no node is known to serve
STALE = ("READONLY", "CLUSTERDOWN", "MASTERDOWN")  # who serves what is not as we know it


class Router:
    """`send` is every call's way to a server."""

    def __init__(
        self, topology: Topology, retry: Retry, clock: Callable[[], float], timeout_s: float
    ) -> None:
        self.topology = topology
        self._retry = retry
        self._clock = clock
        self._timeout_s = timeout_s
        self._lookout = topology.lookout

    async def send(
        self,
        slot: int | None,
        commands: Sequence[Command],
        *,
        repeatable: bool,
        replica: bool = False,
        whole: bool = False,
    ) -> list[Any]:
        """Replies of commands that one node serves. Raises StoreError, for an error reply too: the first of
        them, when all have been answered. `whole`: commands from MULTI to EXEC.

        What no primary has run waits for a new one where there may be one.
        """
        waited_for: set[str] = set()
        once = not repeatable and len(commands) > 1  # some may have run when one was refused
        while True:
            try:
                replies = await self._send(slot, commands, repeatable, replica, whole)
            except StoreError as error:
                node = None if once else self._without_primary(slot, error)
                if node is None or self._lookout is None or not await self._lookout.wait(node):
                    raise
                waited_for.add(node)
            else:
                if self._lookout is not None:
                    for node in waited_for:
                        self._lookout.served(node)
                return replies

    def _without_primary(self, slot: int | None, error: StoreError) -> str | None:
        """The node that did not run a call since it is no primary, or not there; None: another error."""
        if not error.retryable or not isinstance(error, StoreConnectionError | StoreUnavailable):
            return None
        try:
            node = self.pick(slot)
        except StoreUnavailable:
            return NOBODY
        return node.where if isinstance(error, NoPrimary) or node.breaker.suspicious else None

    async def _send(
        self, slot: int | None, commands: Sequence[Command], repeatable: bool, replica: bool, whole: bool
    ) -> list[Any]:
        """Within one timeout."""
        deadline = self._clock() + self._timeout_s
        elsewhere = replica

        async def attempt() -> list[Any]:
            nonlocal elsewhere
            node = self.pick(slot, replica=elsewhere)
            elsewhere = False  # when the replica fails: the primary has it too
            return await self._follow(node, commands, deadline, repeatable=repeatable, whole=whole)

        return await (self._retry.call(attempt, deadline) if repeatable else attempt())

    async def on_node(self, node: Node, commands: Sequence[Command]) -> list[Any]:
        """Replies of one node to repeatable commands that have no key. Raises StoreError."""
        deadline = self._clock() + self._timeout_s

        async def attempt() -> list[Any]:
            return await self._checked(node, commands, deadline)

        return await self._retry.call(attempt, deadline)

    def pick(self, slot: int | None, *, replica: bool = False) -> Node:
        """The node for a slot; None: any primary, one that answers if possible. Raises StoreUnavailable."""
        if slot is not None:
            return (self.topology.replica(slot) if replica else None) or self.topology.primary(slot)
        nodes = list(self.topology.primaries())
        if not nodes:
            raise StoreUnavailable("no primary of the cluster is known", "see CLUSTER INFO")
        return next((node for node in nodes if not node.breaker.suspicious), nodes[0])

    async def _checked(self, node: Node, commands: Sequence[Command], deadline: float) -> list[Any]:
        replies = await self._exchange(node, commands, deadline, repeatable=True)
        await self._check(node, replies)
        return replies

    async def _follow(
        self,
        node: Node,
        commands: Sequence[Command],
        deadline: float,
        *,
        repeatable: bool,
        whole: bool = False,
        asking: bool = False,
    ) -> list[Any]:
        """Go where redirects point: who sends one has run nothing of what it answers so."""
        for _ in range(MAX_REDIRECTS + 1):
            sent = [("ASKING",), *commands] if asking else commands
            replies = (await self._exchange(node, sent, deadline, repeatable=repeatable))[int(asking) :]
            at = {index: to for index, reply in enumerate(replies) if (to := _redirect(reply, node))}
            if not at:
                await self._check(node, replies)
                return replies
            if not whole and len(commands) > 1:
                for index, found in at.items():
                    (replies[index],) = await self._follow(
                        self.topology.redirected(found, node),
                        [commands[index]],
                        deadline,
                        repeatable=repeatable,
                        asking=found.ask,
                    )
                await self._check(node, replies)
                return replies
            redirect = next(iter(at.values()))
            node, asking = self.topology.redirected(redirect, node), redirect.ask
        raise StoreUnavailable(f"{node.where}: more than {MAX_REDIRECTS} redirects", "slots are being moved")

    async def _exchange(
        self, node: Node, commands: Sequence[Command], deadline: float, *, repeatable: bool
    ) -> list[Any]:
        try:
            return await node.exchange(commands, repeatable=repeatable, deadline=deadline)
        except StoreError:
            self.topology.lost(node)
            raise

    async def _check(self, node: Node, replies: Sequence[Any]) -> None:
        """Raise for the first error reply, also one of a command that EXEC ran."""
        for reply in replies:
            for one in reply if isinstance(reply, list) else (reply,):
                if isinstance(one, Exception):
                    text = str(one)
                    if code_of(text) in STALE:
                        await self.topology.suspect(node)
                    raise translate(text, node.where)


def _redirect(reply: Any, node: Node) -> Redirect | None:
    return Redirect.parse(str(reply), node.host) if isinstance(reply, Exception) else None
