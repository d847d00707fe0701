# SPDX-License-Identifier: Apache-2.0
"""The store that the appliance's state is kept in: the first durable one of the chain, else the embedded."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar, cast

from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.durable import DurableStore
from valkyrie.adapters.factory import Around, StoreFactory
from valkyrie.adapters.secrets import Secrets
from valkyrie.adapters.settings import Backend, RespSettings, StoreSettings

POOL = 2  # one call at a time, and one to spare
RETRIES = 1  # a connection that the server closed for idling; what fails twice is tried at the next turn
BREAKER_S = 1.0  # shorter than what the daemon may take to notice that the store is back

S = TypeVar("S", bound=RespSettings)


class Opened(DurableStore, Protocol):
    """A durable store as the sync uses it: the adapters are both this and a StoreAdapter."""

    async def start(self) -> None: ...
    async def close(self) -> None: ...


def backend_of(settings: StoreSettings) -> Backend:
    return next((name for name in settings.chain if name != "yggdrasil"), "embedded")


def make_store(
    settings: StoreSettings, appliance: str, secrets: Secrets, backend: str | None = None
) -> Opened:
    """The store's adapter, not started; `backend`: another than the settings ask for. Raises
    StoreConfigurationError. It is asked no limits.
    """
    own = settings.model_copy(update={"redis": _own(settings.redis), "valkey": _own(settings.valkey)})
    around = Around(appliance, StaticBook(), secrets, Path())
    return cast("Opened", StoreFactory().create(backend or backend_of(settings), own, around))


def _own(settings: S) -> S:
    """The same server for a client that asks again by itself."""
    return settings.model_copy(
        update={
            "pool_size": POOL,
            "max_retries": RETRIES,
            "breaker_seconds": min(BREAKER_S, settings.breaker_seconds),
        }
    )
