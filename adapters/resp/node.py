# SPDX-License-Identifier: Apache-2.0
"""One server as calls see it: its pool, its circuit breaker and the deadline of a call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

from valkyrie.adapters.errors import StoreConnectionError, StoreError
from valkyrie.adapters.resp.breaker import Breaker
from valkyrie.adapters.resp.errors import LinkLost, lost
from valkyrie.adapters.resp.link import Command
from valkyrie.adapters.resp.pool import Pool


class _Phase(Enum):
    """How far a call got. From SENT on it may have taken effect."""

    WAITING = auto()
    CONNECTING = auto()
    SENT = auto()


class Node:
    """`where` is for people, `host` what redirects without a host mean."""

    def __init__(self, where: str, pool: Pool, breaker: Breaker, host: str = "") -> None:
        self.where = where
        self.host = host
        self.pool = pool
        self.breaker = breaker

    async def exchange(self, commands: Sequence[Command], *, repeatable: bool, deadline: float) -> list[Any]:
        """Send commands once, in one write, and return the replies, error replies among them as exceptions.

        `deadline` is of the loop's clock and covers waiting for a free connection, connecting and the answer.
        Raises StoreConnectionError when nothing was sent; when it was and no answer came, OutcomeUnknown
        unless it is `repeatable`; StoreUnavailable while the breaker is open.
        """
        self.breaker.check()
        phase = _Phase.WAITING
        try:
            async with asyncio.timeout_at(deadline):
                await self.pool.reserve()
                try:
                    self.breaker.enter()  # those in line before may have found the server dead
                    phase = _Phase.CONNECTING
                    link = await self.pool.take()
                except BaseException:
                    self.pool.unreserve()
                    raise
                phase = _Phase.SENT
                try:
                    replies = await link.exchange(commands)
                except BaseException:
                    await link.close()
                    raise
                finally:
                    await self.pool.give(link)
        except TimeoutError:
            error = self._late(phase, repeatable=repeatable)
            await self._tell(error, phase, silent=True)
            raise error from None
        except LinkLost as broken:
            error = lost(self.where, str(broken).rstrip(" ."), repeatable=repeatable, timeout=False)
            await self._tell(error, phase)
            raise error from broken
        except StoreError as failed:
            await self._tell(failed, phase)
            raise
        except BaseException:
            if phase is not _Phase.WAITING:
                self.breaker.gave_up()
            raise
        self.breaker.succeeded()
        return replies

    async def _tell(self, error: StoreError, phase: _Phase, *, silent: bool = False) -> None:
        """Waiting in line says nothing about the server. When it is silent or the breaker opens, idle links
        go too: of a network that was cut they do not know, and a call that was sent over one would be in
        doubt, where one that cannot connect is not.
        """
        if phase is _Phase.WAITING:
            return
        self.breaker.failed(error)
        if self.breaker.open or silent:
            await self.pool.clear()

    def _late(self, phase: _Phase, *, repeatable: bool) -> StoreError:
        if phase is _Phase.SENT:
            return lost(self.where, "no answer in time", repeatable=repeatable, timeout=True)
        if phase is _Phase.CONNECTING:
            return StoreConnectionError(
                f"no connection to {self.where} in time",
                "see whether it is reachable and speaks TLS just as the settings say, or raise timeout_ms",
            )
        return StoreConnectionError(
            f"all connections to {self.where} stayed in use", "raise pool_size, or make fewer calls at once"
        )
