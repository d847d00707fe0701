# SPDX-License-Identifier: Apache-2.0
"""The one interface of every store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Self

from valkyrie.adapters.limit import Limit

MAX_VALUE_BYTES = 1 << 20  # of any store; Yggdrasil's is 1 KiB


class Feature(Enum):
    """What a store may be able to do, for `supports_feature`."""

    DURABLE = "durable"  # what is acknowledged outlives this machine's memory (DurableStore)
    SHARED = "shared"  # other machines see the same buckets
    DECLARED_LIMITS = "declared-limits"  # limits by name
    TRANSACTIONS = "transactions"
    COMPRESSION = "compression"
    ENCRYPTION = "encryption"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of `try_consume`. `remaining` tokens are there after it; a caller that was refused may ask
    again for as much after `retry_after` seconds (0 when allowed; infinite when it asked for more than the
    burst); the bucket is full after `reset_after` seconds. `store` is the backend that answered; `degraded`
    means that none did and the setting for that case decided.
    """

    allowed: bool
    remaining: int
    retry_after: float
    reset_after: float
    store: str
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One of many for `try_consume_many`."""

    key: str
    limit: str | Limit
    n: int = 1


@dataclass(frozen=True, slots=True)
class Health:
    """`ok` is whether the store serves now; `detail` says what it is, or what is wrong, for people."""

    ok: bool
    latency_ms: float
    detail: str


@dataclass(frozen=True, slots=True)
class OperationStats:
    """Of one operation since start. The quantiles, in milliseconds, are of a window of recent calls; the
    histogram counts all calls up to each of stats.BOUNDS_MS, and last those beyond.
    """

    count: int
    errors: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    total_ms: float = 0.0
    histogram: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreStats:
    """`connections` are those open now; `operations` go by the method's name; `extra` holds a store's own."""

    backend: str
    connections: int
    operations: Mapping[str, OperationStats]
    extra: Mapping[str, int | float | str] = field(default_factory=dict)


class StoreAdapter(ABC):
    """A store of buckets and of small values. All methods may be called from many tasks of one event loop.

    Keys are text of 1 to 1,024 UTF-8 bytes; values are bytes. TTLs are seconds (exact to the millisecond); 0
    or less is InvalidInput. All but `stats`, `backend_name` and `supports_feature` may raise StoreError.
    """

    @abstractmethod
    async def start(self) -> None:
        """Connect, and check that the store can do what it must. Called once before all else."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections; calls under way end. Again: nothing."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def get(self, key: str) -> bytes | None:
        """The value, None if there is none or it has expired."""

    @abstractmethod
    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        """Write a value; without `ttl` it stays. An earlier value and its TTL are gone."""

    @abstractmethod
    async def delete(self, key: str) -> bool:
        """Whether there was a value."""

    @abstractmethod
    async def exists(self, key: str) -> bool: ...

    @abstractmethod
    async def ttl(self, key: str) -> float | None:
        """Seconds that the value has left; None if it stays. Raises NotFound if there is none."""

    @abstractmethod
    async def increment(self, key: str, amount: int = 1, ttl: float | None = None) -> int:
        """Add to an integer (a value of decimal digits; none counts as 0) and return the sum. `ttl` is set
        when this call makes the value, and left alone else. Never repeated once sent: OutcomeUnknown says
        that it may have taken effect. Raises ConsistencyError if the value is no integer of 64 bits.
        """

    @abstractmethod
    async def try_consume(self, key: str, n: int = 1, *, limit: str | Limit) -> Decision:
        """Take `n` tokens of the key's bucket if they are there; none else. `limit` is the name of a
        declared limit (NotFound if there is none such) or the caller's own. n = 0 looks without taking.
        Never repeated once sent: OutcomeUnknown says that the tokens may have been taken.
        """

    @abstractmethod
    async def try_consume_many(self, requests: Sequence[Request]) -> list[Decision]:
        """As so many `try_consume`, in order, in as few calls to the store as can be. Not all or nothing:
        each is decided for itself. What one cannot be asked (InvalidInput, NotFound) refuses the whole before
        anything is taken; OutcomeUnknown means that any of them may have been taken.
        """

    @abstractmethod
    async def health_check(self) -> Health:
        """Ask the store itself. Never raises StoreError."""

    @abstractmethod
    def stats(self) -> StoreStats: ...

    @property
    @abstractmethod
    def backend_name(self) -> str:
        """`redis`, `valkey`, `embedded`, `yggdrasil`; of a manager: the one in use."""

    @abstractmethod
    def supports_feature(self, feature: Feature) -> bool: ...

    @abstractmethod
    async def flush_all(self) -> int:
        """Delete every bucket and value of this appliance's name in the store (never documents, never others'
        keys); how many. Raises StoreConfigurationError unless the settings allow it (allow_flush).
        """
