# SPDX-License-Identifier: Apache-2.0
"""Stores by name, and the chain that settings ask for. A driver's library is loaded with its store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from valkyrie.adapters.errors import StoreConfigurationError
from valkyrie.adapters.hybrid.events import Listener
from valkyrie.adapters.hybrid.manager import HybridStoreManager
from valkyrie.adapters.hybrid.member import Member
from valkyrie.adapters.limit import LimitBook
from valkyrie.adapters.migrate.migratable import Migratable
from valkyrie.adapters.secrets import Secrets
from valkyrie.adapters.settings import StoreSettings
from valkyrie.adapters.store import StoreAdapter


@dataclass(frozen=True)
class Around:
    """What stores need beside their settings; `pin_dir` is where the kernel's maps are pinned."""

    appliance: str
    book: LimitBook
    secrets: Secrets
    pin_dir: Path


Maker = Callable[[StoreSettings, Around], StoreAdapter]


def _redis(settings: StoreSettings, around: Around) -> StoreAdapter:
    from valkyrie.adapters.redis import RedisAdapter  # noqa: PLC0415 - loads its driver

    return RedisAdapter(
        settings.redis, around.appliance, around.book, around.secrets, allow_flush=settings.allow_flush
    )


def _valkey(settings: StoreSettings, around: Around) -> StoreAdapter:
    from valkyrie.adapters.valkey import ValkeyAdapter  # noqa: PLC0415 - loads its driver

    return ValkeyAdapter(
        settings.valkey, around.appliance, around.book, around.secrets, allow_flush=settings.allow_flush
    )


def _embedded(settings: StoreSettings, around: Around) -> StoreAdapter:
    from valkyrie.adapters.embedded import EmbeddedAdapter  # noqa: PLC0415 - as the others

    return EmbeddedAdapter(settings.embedded, around.appliance, around.book, allow_flush=settings.allow_flush)


def _yggdrasil(settings: StoreSettings, around: Around) -> StoreAdapter:
    from valkyrie.adapters.yggdrasil.adapter import YggdrasilAdapter  # noqa: PLC0415 - loads numpy and BPF

    return YggdrasilAdapter(
        settings.yggdrasil,
        around.appliance,
        around.book,
        pin_dir=around.pin_dir,
        allow_flush=settings.allow_flush,
    )


REGISTRY: Mapping[str, Maker] = {
    "embedded": _embedded,
    "yggdrasil": _yggdrasil,
    "redis": _redis,
    "valkey": _valkey,
}


DURABLE = ("redis", "valkey", "embedded")  # those that keep an appliance's state


class StoreFactory:
    """`registry` may name further stores."""

    def __init__(self, registry: Mapping[str, Maker] = REGISTRY) -> None:
        self._registry = dict(registry)

    def create(self, backend: str, settings: StoreSettings, around: Around) -> StoreAdapter:
        """The store, not started. Raises StoreConfigurationError for one that is not known, whose driver is
        not installed, or whose settings cannot hold.
        """
        make = self._registry.get(backend)
        if make is None:
            known = ", ".join(sorted(self._registry))
            raise StoreConfigurationError(f"there is no store {backend[:64]!r}", f"there are: {known}")
        try:
            return make(settings, around)
        except ImportError as error:
            raise StoreConfigurationError(
                f"store {backend} needs the Python package {error.name}, which is not installed",
                f"pip install {error.name}, or leave {backend} out of the chain",
            ) from error

    def chain(
        self, settings: StoreSettings, around: Around, *, listener: Listener | None = None
    ) -> HybridStoreManager:
        """The stores of the chain as one, not started."""
        names = settings.chain
        durable = next((name for name in names if name in DURABLE), None)
        members = [
            Member(
                name,
                partial(self._member, name, settings, around, migratable=name == durable),
                _patience(settings, name) if len(names) > 1 else None,
            )
            for name in names
        ]
        return HybridStoreManager(
            members,
            around.book,
            when_all_fail=settings.when_all_fail,
            fail_back_seconds=settings.fail_back_seconds,
            listener=listener,
        )

    def _member(
        self, name: str, settings: StoreSettings, around: Around, *, migratable: bool
    ) -> StoreAdapter:
        """A store of a chain, not started. The first that keeps state is the one that can be migrated."""
        if not migratable:
            return self.create(name, settings, around)
        return Migratable(name, lambda which: self.create(which, settings, around), around.book)


def _patience(settings: StoreSettings, name: str) -> float | None:
    """One timeout of the store's, and what it may wait for a new primary: another one is there to ask, so it
    is not asked again and again.
    """
    own = {"redis": settings.redis, "valkey": settings.valkey}.get(name)
    return None if own is None else own.timeout_ms / 1000 + own.failover_s
