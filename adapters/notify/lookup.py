# SPDX-License-Identifier: Apache-2.0
"""Addresses of names, asked for in threads of our own.

The event loop has two threads for the names of all: two that nobody answers for would hold up every other
adapter and store, and the end of the daemon as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

Addresses: TypeAlias = list[tuple[Any, Any, int, str, tuple[Any, ...]]]
"""As socket.getaddrinfo gives them."""
Ask: TypeAlias = Callable[[str, int], Addresses]


def _ask(host: str, port: int) -> Addresses:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Lookup:
    """Of one sender, whose host is always the same but for a credential that changes: so one thread waits at
    most, however often the sender gives up and tries again. Use from one event loop.
    """

    def __init__(self, ask: Ask = _ask) -> None:
        self._ask = ask
        self._host = ("", 0)
        self._asked: asyncio.Future[Addresses | OSError] | None = None

    async def addresses(self, host: str, port: int) -> Addresses:
        """One or more. Raises OSError; may be cancelled, and whoever asks next waits for the same answer."""
        with contextlib.suppress(OSError):
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        if self._asked is None or self._asked.done() or self._host != (host, port):
            self._host = (host, port)
            self._asked = self._begin(host, port)
        found = await asyncio.shield(self._asked)
        if isinstance(found, OSError):
            raise found
        return found

    def _begin(self, host: str, port: int) -> asyncio.Future[Addresses | OSError]:
        loop = asyncio.get_running_loop()
        made: asyncio.Future[Addresses | OSError] = loop.create_future()

        def answer(found: Addresses | OSError) -> None:
            if not made.done():
                made.set_result(found)

        def work() -> None:
            found: Addresses | OSError
            try:
                found = self._ask(host, port)
            except OSError as error:
                found = error
            except UnicodeError:  # a label that is empty or too long
                found = OSError("the name is not one")
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(answer, found)

        threading.Thread(target=work, name="lookup", daemon=True).start()
        return made
