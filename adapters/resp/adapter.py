# SPDX-License-Identifier: Apache-2.0
"""What Redis and Valkey do alike as a store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from valkyrie.adapters.asked import asks, checked_amount, checked_key, checked_ttl, checked_value
from valkyrie.adapters.codec import Codec
from valkyrie.adapters.errors import OutcomeUnknown, StoreConfigurationError, StoreError
from valkyrie.adapters.limit import Limit, LimitBook
from valkyrie.adapters.migrate.resp import RespSide
from valkyrie.adapters.naming import SHARDS, bucket_key, shard_of, value_key
from valkyrie.adapters.resp.client import RespClient
from valkyrie.adapters.resp.coalesce import Coalescer
from valkyrie.adapters.resp.consume import Consumer, Outcome, Taking
from valkyrie.adapters.resp.durable import RespDurable
from valkyrie.adapters.resp.info import ServerInfo, check_user, look
from valkyrie.adapters.resp.link import Command, Driver
from valkyrie.adapters.resp.scripts import INCREMENT
from valkyrie.adapters.secrets import Secrets
from valkyrie.adapters.settings import RespSettings
from valkyrie.adapters.stats import OperationMeter
from valkyrie.adapters.store import Decision, Feature, Health, Request, StoreAdapter, StoreStats
from valkyrie.control.errors import InvalidInput, NotFound

FEATURES = frozenset({Feature.DURABLE, Feature.SHARED, Feature.DECLARED_LIMITS, Feature.TRANSACTIONS})
FLUSH_BATCH = 500
MAX_TRANSACTION = 1000
NO_KEY, NO_TTL = -2, -1  # what PTTL says


@dataclass(frozen=True, slots=True)
class Put:
    """In a transaction: what `set` does."""

    key: str
    value: bytes
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """In a transaction: what `delete` does."""

    key: str


class RespAdapter(RespDurable, StoreAdapter):
    """`get`, `set`, `delete`, `exists`, `ttl` and transactions are repeated when a reply is lost, since twice
    is as good as once (only `delete` then says False of what it deleted itself); `increment` and
    `try_consume` never.
    """

    driver: ClassVar[Driver]

    def __init__(
        self,
        settings: RespSettings,
        appliance: str,
        book: LimitBook,
        secrets: Secrets,
        *,
        allow_flush: bool = False,
        read_replicas: bool = False,
    ) -> None:
        client = RespClient(self.driver, settings, secrets, read_replicas=read_replicas)
        super().__init__(client, appliance)
        self._settings = settings
        self._secrets = secrets
        self._book = book
        self._allow_flush = allow_flush
        self._replica = read_replicas
        self._consumer = Consumer(client, appliance, self.driver.name)
        self._coalescer = Coalescer(self._consumer) if settings.coalesce else None
        self._meter = OperationMeter()
        self._codec: Codec | None = None
        self._server = ServerInfo()

    async def start(self) -> None:
        """Connect; check the server's version and, by trying, that the user may do what is needed."""
        await self._client.start()
        try:
            self._server = await look(self._client)
            self._server.check_version()
            await check_user(self._client, self._appliance, self._consumer)
        except BaseException:
            await self._client.close()
            raise

    async def close(self) -> None:
        if self._coalescer is not None:
            await self._coalescer.close()
        await self._client.close()

    async def get(self, key: str) -> bytes | None:
        with self._meter.timed("get"):
            name = self._value(key)
            stored = await self._client.run("GET", name, repeatable=True, replica=self._replica)
            return None if stored is None else self._decoded(name, stored)

    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        with self._meter.timed("set"):
            await self._client.run(*self._set_command(key, value, ttl), repeatable=True)

    async def delete(self, key: str) -> bool:
        with self._meter.timed("delete"):
            return bool(await self._client.run("DEL", self._value(key), repeatable=True))

    async def exists(self, key: str) -> bool:
        with self._meter.timed("exists"):
            name = self._value(key)
            return bool(await self._client.run("EXISTS", name, repeatable=True, replica=self._replica))

    async def ttl(self, key: str) -> float | None:
        with self._meter.timed("ttl"):
            name = self._value(key)
            left: int = await self._client.run("PTTL", name, repeatable=True, replica=self._replica)
            if left == NO_KEY:
                raise NotFound(
                    f"there is no value under {key!r}", "it was never set, was deleted, or has expired"
                )
            return None if left == NO_TTL else left / 1000

    async def increment(self, key: str, amount: int = 1, ttl: float | None = None) -> int:
        with self._meter.timed("increment"):
            name, add, lives = self._value(key), checked_amount(amount), checked_ttl(ttl)
            if lives is None:
                return int(await self._client.run("INCRBY", name, add, repeatable=False))
            return int(await self._client.script(INCREMENT, [name], [add, lives], repeatable=False))

    async def transaction(self, steps: Sequence[Put | Remove]) -> None:
        """All of it or nothing, unseen half-way by others: MULTI/EXEC."""
        with self._meter.timed("transaction"):
            if len(steps) > MAX_TRANSACTION:
                raise InvalidInput(f"a transaction of {len(steps)} steps", f"{MAX_TRANSACTION} at most")
            if steps:
                await self._client.transaction([self._step(step) for step in steps], repeatable=True)

    async def try_consume(self, key: str, n: int = 1, *, limit: str | Limit) -> Decision:
        with self._meter.timed("try_consume"):
            ((bucket, cost, tokens),) = await asks(self._book, [Request(key, limit, n)])
            taking = Taking(bucket, cost, tokens)
            if self._coalescer is not None:
                return await self._coalescer.take(taking)
            return _all_decided(await self._consumer.take([taking]))[0]

    async def try_consume_many(self, requests: Sequence[Request]) -> list[Decision]:
        with self._meter.timed("try_consume_many"):
            wanted = await asks(self._book, requests)
            if not wanted:
                return []
            return _all_decided(await self._consumer.take([Taking(*ask) for ask in wanted]))

    async def health_check(self) -> Health:
        """Every primary is asked. A server that may evict keys serves, but `detail` warns of it."""
        began = asyncio.get_running_loop().time()
        try:
            with self._meter.timed("health_check"):
                self._server = await look(self._client)
        except StoreError as error:
            return Health(False, self._since(began), str(error))
        return Health(self._server.serves, self._since(began), str(self._server))

    async def server_time(self) -> float:
        """Seconds since 1970 by the server's clock, which buckets go by."""
        seconds, micros = await self._client.run("TIME", repeatable=True)
        return int(seconds) + int(micros) / 1e6

    def stats(self) -> StoreStats:
        return StoreStats(
            self.backend_name,
            self._client.connections,
            self._meter.snapshot(),
            {
                "server": f"{self._server.name} {self._server.version}",
                "breaker_opened": self._client.breakers_opened,
                "breaker_open": self._client.breakers_open,
            },
        )

    @property
    def backend_name(self) -> str:
        return self.driver.name

    def supports_feature(self, feature: Feature) -> bool:
        return feature in FEATURES or (feature is Feature.CLUSTER and self._settings.cluster_mode)

    async def flush_all(self) -> int:
        with self._meter.timed("flush_all"):
            if not self._allow_flush:
                raise StoreConfigurationError(
                    "flush_all is not allowed", "set store.allow_flush: true if it shall delete everything"
                )
            ours = _prefixes(self._appliance)
            gone = 0
            async for found in self._client.scan(f"vk:{{{self._appliance}*"):
                names = [name for name in found if name.startswith(ours)]
                for start in range(0, len(names), FLUSH_BATCH):
                    batch = [("UNLINK", name) for name in names[start : start + FLUSH_BATCH]]
                    gone += sum(await self._client.pipeline(batch, repeatable=True))
            return gone

    def side(self) -> RespSide:
        """What a migration needs of it beside."""
        return RespSide(self._client, self._appliance, self._encoded, self._decoded)

    def _value(self, key: str) -> str:
        return value_key(self._appliance, checked_key(key))

    def _set_command(self, key: str, value: bytes, ttl: float | None) -> Command:
        name, lives, plain = self._value(key), checked_ttl(ttl), checked_value(value)
        stored = self._encoded(name, plain)
        return ("SET", name, stored) if lives is None else ("SET", name, stored, "PX", lives)

    def _encoded(self, name: str, plain: bytes) -> bytes:
        return plain if self._codec is None else self._codec.encode(name, plain)

    def _decoded(self, name: str, stored: bytes) -> bytes:
        return stored if self._codec is None else self._codec.decode(name, stored)

    def _step(self, step: Put | Remove) -> Command:
        if isinstance(step, Put):
            return self._set_command(step.key, step.value, step.ttl)
        return ("DEL", self._value(step.key))

    def _since(self, began: float) -> float:
        return (asyncio.get_running_loop().time() - began) * 1000


def _all_decided(outcomes: Sequence[Outcome]) -> list[Decision]:
    """The decisions. Raises if there is one error: OutcomeUnknown if tokens are or may be gone."""
    decided = [outcome for outcome in outcomes if isinstance(outcome, Decision)]
    errors = [outcome for outcome in outcomes if isinstance(outcome, StoreError)]
    if not errors:
        return decided
    unknown = next((error for error in errors if isinstance(error, OutcomeUnknown)), None)
    if unknown is None and errors[0].retryable and any(one.allowed for one in decided):
        raise OutcomeUnknown(
            f"{len(errors)} of {len(outcomes)} were not decided: {errors[0].what}", "others took their tokens"
        ) from errors[0]
    raise unknown or errors[0]


def _prefixes(appliance: str) -> tuple[str, ...]:
    """What names of buckets and values begin with: exactly, since a pattern for `edge` may match `edge.7`."""
    shards: dict[int, str] = {}
    number = 0
    while len(shards) < SHARDS:
        name = str(number)
        shards.setdefault(shard_of(name), bucket_key(appliance, name).removesuffix(name))
        number += 1
    return (value_key(appliance, ""), *shards.values())
