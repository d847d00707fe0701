# SPDX-License-Identifier: Apache-2.0
"""A follower's side of the store: who is active there, and what policy that one keeps. Only reads."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from valkyrie.adapters.errors import ConsistencyError
from valkyrie.adapters.settings import StoreSettings
from valkyrie.control.document import to_document
from valkyrie.control.durable.document import STATE, Kept, LaterVersion, read_state
from valkyrie.control.durable.opening import Opened
from valkyrie.control.durable.publish import NEVER
from valkyrie.control.durable.succession import Watch
from valkyrie.control.errors import StateError
from valkyrie.control.limits import Desired
from valkyrie.control.service.core import Core

POLICY_S = 2.0  # between two looks at the policy, or the interval of the sync if that is longer
SILENT_S = 10.0  # for a takeover by hand


class Following:
    """The connection to what the followed appliance keeps, and what was seen there. `had`: when its policy
    was there last; `damage` says why it could not be read.
    """

    def __init__(self, core: Core, make: Callable[[StoreSettings, str], Opened], token: str) -> None:
        self._core = core
        self._make = make
        self._token = token
        self._store: Opened | None = None
        self._opened_for: tuple[StoreSettings, str] | None = None
        self._forget()

    def _forget(self) -> None:
        self.watch = Watch(self._token)
        self.had: float | None = None
        self.damage = ""
        self._content: bytes | None = None  # in force here
        self._handed: bytes | None = None
        self._read = NEVER

    async def open(self, name: str) -> Opened:
        """The store of the settings, under that name. Raises StoreError."""
        wanted = (self._core.settings.store, name)
        if self._store is not None and self._opened_for == wanted:
            return self._store
        await self.close()
        self._store, self._opened_for = await self._started(name), wanted
        return self._store

    async def _started(self, name: str) -> Opened:
        store = self._make(self._core.settings.store, name)
        try:
            await store.start()
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Let go of the connection, and of what was seen."""
        store, self._store = self._store, None
        self._forget()
        if store is not None:
            await store.close()

    async def look(self, name: str) -> Opened:
        """See who is active. Raises StoreError."""
        store = await self.open(name)
        self.watch.saw(await store.owner(), time.monotonic())
        return store

    async def policy(self, store: Opened) -> Kept | None:
        """The policy if it is another than before. A damaged one is passed over. Raises StoreError, and
        LaterVersion.
        """
        now = time.monotonic()
        if now - self._read < max(POLICY_S, self._core.settings.sync.interval_seconds):
            return None
        content = await store.get_document(STATE)
        self._read = now
        if content is None:
            return None
        self.had = now
        if content == self._content:
            return None
        try:
            kept = await asyncio.to_thread(read_state, content)
        except LaterVersion:
            self._read = NEVER
            raise
        except ConsistencyError as error:
            self.damage = str(error)
            return None
        self.damage, self._handed = "", content
        return kept

    def taken(self) -> None:
        """The policy handed out last is in force."""
        self._content = self._handed

    async def is_kept(self, name: str) -> bool:
        """Whether there is a policy under that name. Raises StoreError; ConsistencyError for one that cannot
        be used.
        """
        store = await self._started(name)
        try:
            content = await store.get_document(STATE)
        finally:
            await store.close()
        if content is None:
            return False
        await asyncio.to_thread(read_state, content)
        return True


def put_aside(path: Path, desired: Desired) -> None:
    """Write a policy to a file that `limits apply` reads; none if it is empty. Raises StateError."""
    if desired == Desired():
        return
    fresh = path.with_suffix(".new")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(to_document(desired), file)
            file.flush()
            os.fsync(fd)
        fresh.rename(path)
    except OSError as error:
        raise StateError(f"writing {path}: {error.strerror}", "free some space or mend the rights") from error
