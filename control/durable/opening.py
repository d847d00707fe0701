# SPDX-License-Identifier: Apache-2.0
"""The store that the appliance's state is kept in: the first durable one of the chain, else the embedded."""

from __future__ import annotations

from typing import NoReturn, Protocol, TypeVar

from valkyrie.adapters.durable import DurableStore
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.secrets import Secrets
from valkyrie.adapters.settings import Backend, RespSettings, StoreSettings
from valkyrie.control.errors import NotFound

S = TypeVar("S", bound=RespSettings)

POOL = 2  # one call at a time, and one to spare
RETRIES = 1  # a connection that the server closed for idling; what fails twice is tried at the next tick
BREAKER_S = 1.0  # shorter than what the daemon may take to notice that the store is back


class Opened(DurableStore, Protocol):
    """A durable store as the sync uses it: the adapters are both this and a StoreAdapter."""

    async def start(self) -> None: ...
    async def close(self) -> None: ...


class NoBook:
    """The sync asks no limits."""

    async def limit(self, name: str) -> Limit:
        return _unknown(name)

    def forget(self, name: str) -> None:
        """Nothing is known."""


def _unknown(name: str) -> NoReturn:
    raise NotFound(f"no limit {name[:64]!r} is known to the sync")


def backend_of(settings: StoreSettings) -> Backend:
    return next((name for name in settings.chain if name != "yggdrasil"), "embedded")


def make_store(settings: StoreSettings, appliance: str, secrets: Secrets) -> Opened:
    """The store's adapter, not started. Its libraries are loaded here, and only those that it needs."""
    backend = backend_of(settings)
    if backend == "redis":
        from valkyrie.adapters.redis import RedisAdapter  # noqa: PLC0415

        return RedisAdapter(_own(settings.redis), appliance, NoBook(), secrets)
    if backend == "valkey":
        from valkyrie.adapters.valkey import ValkeyAdapter  # noqa: PLC0415

        return ValkeyAdapter(_own(settings.valkey), appliance, NoBook(), secrets)
    from valkyrie.adapters.embedded import EmbeddedAdapter  # noqa: PLC0415

    return EmbeddedAdapter(settings.embedded, appliance, NoBook())


def _own(settings: S) -> S:
    """The same server for a client that asks again by itself."""
    return settings.model_copy(
        update={
            "pool_size": POOL,
            "max_retries": RETRIES,
            "breaker_seconds": min(BREAKER_S, settings.breaker_seconds),
        }
    )
