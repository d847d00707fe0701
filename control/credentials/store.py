# SPDX-License-Identifier: Apache-2.0
"""Who needs a credential gets it here, and is told of a new one before it counts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any

from valkyrie.adapters.errors import AuthenticationFailed, StoreConfigurationError
from valkyrie.adapters.secrets import Secret, Unwatch, Watcher
from valkyrie.control.credentials.records import PREVIOUS
from valkyrie.control.credentials.vault import Vault
from valkyrie.control.errors import Conflict, NotFound, Unavailable, ValkyrieError

log = logging.getLogger(__name__)

OFFER_S = 8.0  # for all connections of one watcher; two offers are over before the client gives up


class CredentialStore:
    """The adapters' `Secrets` over a vault. One change at a time; reading does not wait for it."""

    def __init__(self, vault: Vault, wall: Callable[[], float]) -> None:
        self.vault = vault
        self._wall = wall
        self._watchers: dict[str, list[Watcher]] = {}
        self._lock = asyncio.Lock()

    async def secret(self, name: str) -> Secret:
        """The value in force. Raises StoreConfigurationError, also for one that cannot be decrypted."""
        try:
            found = self.vault.get(name)
        except ValkyrieError as error:
            raise StoreConfigurationError(error.what, error.hint) from error
        if found is None:
            raise StoreConfigurationError(
                f"there is no credential {name}", f"run: valkyrie-ctl creds set {name}"
            )
        return found

    def open_encrypted(self, text: str) -> Secret:
        """The value of a `password_encrypted`. Raises StoreConfigurationError."""
        try:
            return self.vault.open_encrypted(text)
        except ValkyrieError as error:
            raise StoreConfigurationError(error.what, error.hint) from error

    def watch(self, name: str, callback: Watcher) -> Unwatch:
        watchers = self._watchers.setdefault(name, [])
        watchers.append(callback)

        def end() -> None:
            if callback in watchers:
                watchers.remove(callback)

        return end

    def watched(self, name: str) -> int:
        """How many stores of this process hold connections or keys of that name."""
        return len(self._watchers.get(name, ()))

    async def set(self, name: str, value: bytes) -> tuple[Secret, list[str]]:
        """Put a value in force whatever the stores say of it; their complaints are returned."""
        async with self._lock:
            made = await asyncio.to_thread(self.vault.put, name, value, self._wall())
            failed = await self._offer(name, made)
        complaints = [_told(error) for error in failed]
        for complaint in complaints:
            log.warning("credential %s, version %d: %s", name, made.version, complaint)
        return made, complaints

    async def rotate(self, name: str, value: bytes) -> Secret:
        """Put a value in force once every store that uses it took it; else the old one stays.

        Raises NotFound, Conflict when a server refuses it, Unavailable when one could not be asked.
        """
        async with self._lock:
            old = await asyncio.to_thread(self.vault.get, name)
            if old is None:
                raise NotFound(f"there is no credential {name}", f"run: valkyrie-ctl creds set {name}")
            earlier = (Secret(old.reveal(), old.version), *old.previous)[:PREVIOUS]
            failed = await self._offer(name, Secret(value, old.version + 1, earlier))
            if failed:
                await self._take_back(name, old)
                raise _not_rotated(name, old, failed)
            try:
                return await asyncio.to_thread(self.vault.put, name, value, self._wall())
            except BaseException:
                await self._take_back(name, old)
                raise

    async def delete(self, name: str) -> None:
        """Open connections stay. Raises NotFound."""
        async with self._lock:
            await asyncio.to_thread(self.vault.delete, name)

    async def rekey(self, keep: Collection[str]) -> str:
        """The id of the new master key. Raises Conflict, StateError."""
        async with self._lock:
            return await asyncio.to_thread(self.vault.rekey, keep)

    async def settle(self, keep: Collection[str]) -> bool:
        """Finish a change of the master key. True: there was something to do."""
        async with self._lock:
            return await asyncio.to_thread(self.vault.settle, keep)

    async def encrypt(self, value: bytes) -> str:
        async with self._lock:
            return await asyncio.to_thread(self.vault.encrypt, value)

    async def _offer(self, name: str, secret: Secret) -> list[Exception]:
        """Have every watcher take the value; what those that did not say."""
        calls = [
            asyncio.wait_for(watcher(secret), OFFER_S) for watcher in tuple(self._watchers.get(name, ()))
        ]
        answers: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, Exception):
                raise answer
        return [answer for answer in answers if answer is not None]

    async def _take_back(self, name: str, old: Secret) -> None:
        for error in await self._offer(name, old):
            log.warning("credential %s, back to version %d: %s", name, old.version, _told(error))


def _told(error: Exception) -> str:
    """What a store says. Of an unforeseen error the kind alone: its text may hold what it was given."""
    if isinstance(error, ValkyrieError):
        return error.what
    return "no answer in time" if isinstance(error, TimeoutError) else f"a bug: {type(error).__name__}"


def _not_rotated(name: str, old: Secret, failed: list[Exception]) -> ValkyrieError:
    stays = f"version {old.version} of credential {name} stays in force"
    for error in failed:
        if isinstance(error, AuthenticationFailed):
            return Conflict(
                f"the server refuses the new value: {_told(error)}; {stays}",
                "give the server's user the new password beside the old one, then rotate again",
            )
        if isinstance(error, StoreConfigurationError):
            return Conflict(f"the new value cannot be used: {_told(error)}; {stays}", error.hint)
    return Unavailable(
        f"the new value could not be tried: {_told(failed[0])}; {stays}",
        "rotate again when the store answers, or `valkyrie-ctl creds set` to replace it untried",
    )
