# SPDX-License-Identifier: Apache-2.0
"""The stores that the contract suite runs over, and the limits that it declares."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import pytest
import pytest_asyncio

from support.certs import Certs
from support.clusters import Cluster
from support.servers import Server
from support.yggdrasil import Tables
from valkyrie.adapters.books import StaticBook, limit_from
from valkyrie.adapters.durable import DurableStore
from valkyrie.adapters.embedded import EmbeddedAdapter
from valkyrie.adapters.hybrid.manager import HybridStoreManager
from valkyrie.adapters.hybrid.member import Member
from valkyrie.adapters.redis import RedisAdapter
from valkyrie.adapters.secrets import NoSecrets, Secrets, StaticSecrets
from valkyrie.adapters.settings import (
    EmbeddedSettings,
    RedisSettings,
    TlsSettings,
    ValkeySettings,
    YggdrasilSettings,
)
from valkyrie.adapters.store import StoreAdapter
from valkyrie.adapters.valkey import ValkeyAdapter
from valkyrie.adapters.yggdrasil.adapter import YggdrasilAdapter

LIMITS: list[dict[str, Any]] = [
    {
        "name": "web",
        "key": "src",
        "rate": "5/h",
        "burst": "5",
        "uid": 1,
        "overrides": [
            {"prefix": "203.0.113.0/24", "rate": "9/h", "burst": "9"},
            {"prefix": "2002::/15", "rate": "7/h", "burst": "7"},
        ],
    },
    {"name": "logins", "key": "id", "rate": "4/h", "burst": "4", "uid": 2},
    {"name": "volume", "key": "global", "rate": "8kbit/h", "burst": "4000B", "uid": 3},
]
BOOK = StaticBook(limit_from(entry) for entry in LIMITS)
APPLIANCE = "contract"


class Maker(Protocol):
    """Each call gives another adapter, not started, for the same server or file."""

    def __call__(self, *, allow_flush: bool = False, appliance: str = APPLIANCE) -> StoreAdapter: ...


@dataclass(frozen=True)
class EmbeddedMaker:
    path: Path

    def __call__(self, *, allow_flush: bool = False, appliance: str = APPLIANCE) -> EmbeddedAdapter:
        return EmbeddedAdapter(EmbeddedSettings(path=self.path), appliance, BOOK, allow_flush=allow_flush)


@dataclass(frozen=True)
class RedisMaker:
    settings: RedisSettings

    def __call__(self, *, allow_flush: bool = False, appliance: str = APPLIANCE) -> RedisAdapter:
        return RedisAdapter(self.settings, appliance, BOOK, NoSecrets(), allow_flush=allow_flush)


@dataclass(frozen=True)
class ValkeyMaker:
    settings: ValkeySettings
    secrets: Secrets

    def __call__(self, *, allow_flush: bool = False, appliance: str = APPLIANCE) -> ValkeyAdapter:
        return ValkeyAdapter(self.settings, appliance, BOOK, self.secrets, allow_flush=allow_flush)


@dataclass(frozen=True)
class YggdrasilMaker:
    tables: Tables

    def __call__(self, *, allow_flush: bool = False, appliance: str = APPLIANCE) -> YggdrasilAdapter:
        pins = self.tables.pins(appliance, LIMITS)
        return YggdrasilAdapter(YggdrasilSettings(), appliance, BOOK, pin_dir=pins, allow_flush=allow_flush)


@dataclass(frozen=True)
class HybridMaker:
    """A chain of a Redis and a file: the contract holds for the manager as for its stores."""

    first: Maker
    second: Maker

    def __call__(self, *, allow_flush: bool = False, appliance: str = APPLIANCE) -> HybridStoreManager:
        return HybridStoreManager(
            [
                Member("redis", lambda: self.first(allow_flush=allow_flush, appliance=appliance)),
                Member("embedded", lambda: self.second(allow_flush=allow_flush, appliance=appliance)),
            ],
            BOOK,
        )


def _embedded(request: pytest.FixtureRequest) -> Maker:
    return EmbeddedMaker(request.getfixturevalue("tmp_path") / "store.db")


def _redis(request: pytest.FixtureRequest) -> Maker:
    server: Server = request.getfixturevalue("redis7")
    return RedisMaker(RedisSettings(url=server.url))


def _redis_one_by_one(request: pytest.FixtureRequest) -> Maker:
    server: Server = request.getfixturevalue("redis7")
    return RedisMaker(RedisSettings(url=server.unix_url, coalesce=False))


def _redis_mtls(request: pytest.FixtureRequest) -> Maker:
    server: Server = request.getfixturevalue("redis_mtls")
    certs: Certs = request.getfixturevalue("certs")
    tls = TlsSettings(ca=certs.ca, certificate=certs.client, private_key=certs.client_key)
    return RedisMaker(RedisSettings(url=server.url, tls=tls))


def _valkey(request: pytest.FixtureRequest) -> Maker:
    server: Server = request.getfixturevalue("valkey9")
    return ValkeyMaker(ValkeySettings(url=server.url), NoSecrets())


def _valkey_sealed(request: pytest.FixtureRequest) -> Maker:
    """Values compressed and encrypted."""
    server: Server = request.getfixturevalue("valkey9")
    settings = ValkeySettings(url=server.unix_url, compression="zstd", encryption_credential="values")
    return ValkeyMaker(settings, StaticSecrets({"values": bytes(range(32))}))


def _redis_cluster(request: pytest.FixtureRequest) -> Maker:
    return RedisMaker(RedisSettings(url=_whole(request, "_redis_cluster").url, cluster_mode=True))


def _valkey_cluster(request: pytest.FixtureRequest) -> Maker:
    settings = ValkeySettings(url=_whole(request, "_valkey_cluster").url, cluster_mode=True)
    return ValkeyMaker(settings, NoSecrets())


def _whole(request: pytest.FixtureRequest, name: str) -> Cluster:
    made: Cluster = request.getfixturevalue(name)
    made.wait_until_whole()
    for node in made.nodes:
        if node.run("ROLE")[0] == b"master":
            node.run("FLUSHALL")
    return made


def _yggdrasil(request: pytest.FixtureRequest) -> Maker:
    return YggdrasilMaker(request.getfixturevalue("yggdrasil_tables"))


def _hybrid(request: pytest.FixtureRequest) -> Maker:
    return HybridMaker(_redis(request), _embedded(request))


DURABLE: dict[str, Callable[[pytest.FixtureRequest], Maker]] = {
    "embedded": _embedded,
    "redis": _redis,
    "redis-unix-one-by-one": _redis_one_by_one,
    "redis-mtls": _redis_mtls,
    "redis-cluster": _redis_cluster,
    "valkey": _valkey,
    "valkey-sealed": _valkey_sealed,
    "valkey-cluster": _valkey_cluster,
}
STORES = {**DURABLE, "yggdrasil": _yggdrasil, "hybrid": _hybrid}


@pytest.fixture(params=STORES)
def maker(request: pytest.FixtureRequest) -> Maker:
    """Each store in turn, empty."""
    return STORES[request.param](request)


@pytest_asyncio.fixture
async def store(maker: Maker) -> AsyncIterator[StoreAdapter]:
    """Each store in turn, empty and started."""
    async with maker() as started:
        yield started


class Durable(StoreAdapter, DurableStore):
    """What the makers of DURABLE make."""


@pytest.fixture(params=DURABLE)
def durable_maker(request: pytest.FixtureRequest) -> Maker:
    return DURABLE[request.param](request)


@pytest_asyncio.fixture
async def durable(durable_maker: Maker) -> AsyncIterator[Durable]:
    """Each durable store in turn, empty and started."""
    async with durable_maker() as started:
        yield cast(Durable, started)
