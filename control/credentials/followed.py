# SPDX-License-Identifier: Apache-2.0
"""The host's credentials for an application's process: what `valkyrie-ctl creds` changes, it follows."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from valkyrie.adapters.errors import StoreError
from valkyrie.adapters.secrets import Secret, Secrets, Unwatch, Watcher

log = logging.getLogger(__name__)

POLL_S = 1.0  # until a change is noticed
MOST_PAUSE_S = 30.0  # between two offers of a value that is refused


class Followed:
    """Secrets over those of another process, which tells nobody: they are read again every POLL_S while
    somebody watches. Until a watcher has taken a new value it keeps the old, as while a password is rotated.
    """

    def __init__(self, secrets: Secrets, poll_s: float = POLL_S) -> None:
        self._secrets = secrets
        self._poll_s = poll_s
        self._given: dict[str, int] = {}  # versions that were handed out
        self._tasks: set[asyncio.Task[None]] = set()

    async def secret(self, name: str) -> Secret:
        found = await self._secrets.secret(name)
        self._given[name] = found.version
        return found

    def open_encrypted(self, text: str) -> Secret:
        return self._secrets.open_encrypted(text)

    def watch(self, name: str, callback: Watcher) -> Unwatch:
        task = asyncio.get_running_loop().create_task(self._follow(name, callback))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return _ender(task)

    async def _follow(self, name: str, callback: Watcher) -> None:
        known = self._given.get(name)
        said = ""
        pause = self._poll_s
        while True:
            await asyncio.sleep(pause)
            try:
                found = await self._secrets.secret(name)
                if found.version != known:
                    await callback(found)
            except StoreError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("credential %s is not taken yet: %s", name, said)
                pause = min(MOST_PAUSE_S, pause * 2)
                continue
            known, said, pause = found.version, "", self._poll_s
            self._given[name] = found.version


def _ender(task: asyncio.Task[None]) -> Callable[[], None]:
    def end() -> None:
        task.cancel()

    return end
