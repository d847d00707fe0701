# SPDX-License-Identifier: Apache-2.0
"""Where a server is, from a URL or `host:port`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from valkyrie.adapters.errors import StoreConfigurationError

DEFAULT_PORT = 6379
SENTINEL_PORT = 26379
SECURE = ("rediss", "valkeys")


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP endpoint, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL says."""

    address: Address
    secure: bool
    username: str | None
    database: int


def parse_url(url: str) -> Target:
    """Raises StoreConfigurationError for what is neither understood nor harmless to ignore."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        # Its message would quote the URL, and what may stand in it.
        raise StoreConfigurationError("the store's URL is no URL", "as redis://host:6379") from error
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    database = query.pop("db", "0")
    unix = parts.scheme == "unix"
    if not unix and parts.path not in ("", "/"):
        database = parts.path.strip("/")
    if query:
        raise StoreConfigurationError(
            f"the store's URL has unknown words: {', '.join(sorted(query))}", "only `db` is known there"
        )
    if not database.isdecimal() or int(database) > 1 << 20:
        raise StoreConfigurationError(
            "the store's URL does not end in the number of a database", "as redis://host:6379/0"
        )
    address = Address(path=unquote(parts.path)) if unix else Address(parts.hostname or "localhost", port)
    if unix and (parts.hostname or not parts.path.startswith("/")):
        raise StoreConfigurationError(
            "the store's URL names no absolute path of a socket", "as unix:///run/valkey.sock"
        )
    user = None if parts.username is None else unquote(parts.username)
    return Target(address, parts.scheme in SECURE, user or None, int(database))


def parse_endpoint(text: str, default_port: int) -> Address:
    """`host:port`, `host`, `[v6]:port`. Raises StoreConfigurationError."""
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port or default_port
    except ValueError as error:
        raise StoreConfigurationError(f"no host:port: {text[:80]!r}") from error
    if not parts.hostname or parts.path or parts.query or parts.username:
        raise StoreConfigurationError(f"no host:port: {text[:80]!r}")
    return Address(parts.hostname, port)
