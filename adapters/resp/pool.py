# SPDX-License-Identifier: Apache-2.0
"""The connections to one server: at most so many; who finds none free waits in line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from valkyrie.adapters.errors import StoreConnectionError
from valkyrie.adapters.resp.errors import LinkLost
from valkyrie.adapters.resp.link import Link
from valkyrie.adapters.resp.login import Login

Opener = Callable[[Login | None], Awaitable[Link]]  # None: as the login in force


class Pool:
    """`reserve`, `take`, then `give`. The last link given is the next taken, so that few stay open. No link
    is asked for its health before a call: one whose peer hung up is known without.
    """

    def __init__(self, size: int, opener: Opener) -> None:
        self._permits = asyncio.Semaphore(size)
        self._open = opener
        self._idle: list[Link] = []
        self._all: set[Link] = set()
        self._rotation: asyncio.Queue[Link | None] | None = None
        self._rotating = asyncio.Lock()
        self._offered: Login | None = None
        self._closed = False

    @property
    def connections(self) -> int:
        return len(self._all)

    async def reserve(self) -> None:
        """Wait until fewer than `size` links are in use. Then `take`, or `unreserve`."""
        try:
            await self._permits.acquire()
        except BaseException:
            self._tell()  # its turn may have come already: what it would have taken is idle still
            raise

    def unreserve(self) -> None:
        self._permits.release()
        self._tell()

    async def take(self) -> Link:
        """A link for the reservation's holder, an open one if there is one. Raises StoreError."""
        while self._idle:
            link = self._idle.pop()
            if link.usable:
                return link
            await self._drop(link)
        if self._closed:
            raise StoreConnectionError("the store was closed")
        link = await self._open(None)
        self._all.add(link)
        return link

    async def give(self, link: Link) -> None:
        """Give a link back with its reservation. A broken one is dropped."""
        if self._closed or not link.usable:
            await self._drop(link)
        elif self._rotation is not None and self._stale(link):
            self._rotation.put_nowait(link)  # the reservation goes with it
            return
        else:
            self._idle.append(link)
        self.unreserve()

    async def authenticate(self, login: Login) -> None:
        """AUTH on every link; on those in use as soon as they are given back, before others get them. Where
        none is left, one is opened. Raises AuthenticationFailed if the server refuses, when links keep their
        earlier authentication, and another StoreError if it could not be asked.
        """
        async with self._rotating:
            self._offered, self._rotation = login, asyncio.Queue()
            try:
                while any(self._stale(link) for link in self._all):
                    link = await self._free_idle() or await self._rotation.get()
                    if link is not None:
                        await self._offer(link)
            finally:
                await self._end_rotation()
            if not self._all:
                await self._open_one(login)

    async def _open_one(self, login: Login) -> None:
        await self._permits.acquire()
        try:
            link = await self._open(login)
        except BaseException:
            self.unreserve()
            raise
        self._all.add(link)
        await self.give(link)

    async def _free_idle(self) -> Link | None:
        """A link that nobody uses or has reserved. Not to be waited for: links that are given back keep their
        reservations until they are offered the login.
        """
        link = next((link for link in self._idle if self._stale(link)), None)
        if link is None or self._permits.locked():
            return None
        await self._permits.acquire()
        self._idle.remove(link)
        return link

    async def _offer(self, link: Link) -> None:
        """AUTH on a link that nobody uses, then give it back. One that turns out broken is only dropped."""
        assert self._offered is not None
        try:
            await link.authenticate(self._offered)
        except LinkLost:
            pass
        finally:
            if self._stale(link) and link.usable:
                self._idle.append(link)  # refused: not to be handed to the rotation again
                self._permits.release()
            else:
                await self.give(link)

    async def _end_rotation(self) -> None:
        queue, self._rotation, self._offered = self._rotation, None, None
        while queue is not None and not queue.empty():
            link = queue.get_nowait()
            if link is not None:
                await self.give(link)

    def _stale(self, link: Link) -> bool:
        return self._offered is not None and link.secret is not self._offered.secret

    def _tell(self) -> None:
        """Have a rotation look again."""
        if self._rotation is not None:
            self._rotation.put_nowait(None)

    async def clear(self) -> None:
        """Drop the idle links: the address means another server than it did."""
        idle, self._idle = self._idle, []
        for link in idle:
            await self._drop(link)

    async def close(self) -> None:
        """Drop all links; those in use as soon as they are given back."""
        self._closed = True
        await self.clear()

    async def _drop(self, link: Link) -> None:
        self._all.discard(link)
        self._tell()
        await link.close()
