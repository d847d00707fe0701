# SPDX-License-Identifier: Apache-2.0
"""Secrets by name: what adapters ask for, and values that do not show themselves by accident."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn, Protocol, Self

from valkyrie.adapters.errors import StoreConfigurationError

Watcher = Callable[["Secret"], Awaitable[None]]
Unwatch = Callable[[], None]


class Secret:
    """A value that only `reveal` gives out; repr, str, format, logs and pickle do not.

    `previous` are earlier versions, newest first. They are there to read what was encrypted with them;
    `authenticate` uses the value itself.
    """

    __slots__ = ("_value", "previous", "version")

    def __init__(self, value: bytes, version: int = 1, previous: tuple[Self, ...] = ()) -> None:
        self._value = bytes(value)
        self.version = version
        self.previous = previous

    def reveal(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return f"Secret(version={self.version})"

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self.version == other.version and hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash((self.version, self._value))

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied")


class Secrets(Protocol):
    """Where an adapter gets its passwords and keys from."""

    async def secret(self, name: str) -> Secret:
        """The value in force. Raises StoreConfigurationError if there is none of that name."""

    def watch(self, name: str, callback: Watcher) -> Unwatch:
        """Have `callback` awaited with each new value before it is in force; call what is returned to end it.

        The callback makes every open connection authenticate with the value, and returns when they did.
        AuthenticationError says that the server refuses it: the callback is then called again with the
        value that stays. It may be called twice with one value.
        """

    def open_encrypted(self, text: str) -> Secret:
        """The value in a `password_encrypted` text. Raises StoreConfigurationError."""


class StaticSecrets:
    """Values that the application has at hand, from wherever it keeps its own."""

    def __init__(self, values: Mapping[str, bytes | str]) -> None:
        self._secrets = {name: Secret(_bytes(value)) for name, value in values.items()}
        self._watchers: dict[str, list[Watcher]] = {}

    def __repr__(self) -> str:
        return f"StaticSecrets({', '.join(sorted(self._secrets))})"

    async def secret(self, name: str) -> Secret:
        found = self._secrets.get(name)
        if found is None:
            raise StoreConfigurationError(f"no credential {name!r} was given", "add it to StaticSecrets")
        return found

    def watch(self, name: str, callback: Watcher) -> Unwatch:
        watchers = self._watchers.setdefault(name, [])
        watchers.append(callback)
        return lambda: watchers.remove(callback) if callback in watchers else None

    def open_encrypted(self, text: str) -> Secret:
        del text
        raise StoreConfigurationError(
            "password_encrypted can only be opened where the master key is, by the daemon",
            "name a credential instead",
        )

    async def replace(self, name: str, value: bytes | str) -> None:
        """Put a new value in force once every watcher took it; if one does not, the old one stays."""
        old = self._secrets.get(name)
        new = (
            Secret(_bytes(value))
            if old is None
            else Secret(_bytes(value), old.version + 1, (Secret(old.reveal(), old.version),))
        )
        watchers = tuple(self._watchers.get(name, ()))
        try:
            for watcher in watchers:
                await watcher(new)
        except Exception:
            if old is not None:
                for watcher in watchers:
                    await watcher(old)
            raise
        self._secrets[name] = new


class NoSecrets(StaticSecrets):
    """For stores that ask for no password."""

    def __init__(self) -> None:
        super().__init__({})


def _bytes(value: bytes | str) -> bytes:
    return value.encode() if isinstance(value, str) else value
