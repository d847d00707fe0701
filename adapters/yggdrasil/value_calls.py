# SPDX-License-Identifier: Apache-2.0
"""The part of the adapter that keeps values: each call is a run of the loaded program `value`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TypeVar

from valkyrie.adapters.asked import checked_amount, checked_key, checked_ttl, checked_value
from valkyrie.adapters.errors import StoreError
from valkyrie.adapters.naming import value_key
from valkyrie.adapters.stats import OperationMeter
from valkyrie.adapters.store import StoreAdapter
from valkyrie.adapters.yggdrasil.errors import as_store_error
from valkyrie.adapters.yggdrasil.values import NS_A_MS, Values
from valkyrie.control import abi
from valkyrie.control.dataplane.call import Caller
from valkyrie.control.errors import InvalidInput, NotFound, ValkyrieError

T = TypeVar("T")


class ValueCalls(StoreAdapter):
    _appliance: str
    _meter: OperationMeter

    @property
    @abstractmethod
    def _opened(self) -> tuple[Caller, Values]:
        """Raises StoreConnectionError before start() and after close()."""

    def _value(self, operation: str, work: Callable[[Values], T]) -> T:
        with self._meter.timed(operation):
            try:
                return work(self._opened[1])
            except (InvalidInput, StoreError):
                raise
            except (ValkyrieError, OSError) as error:
                raise as_store_error(error) from error

    def _name(self, key: str) -> str:
        return value_key(self._appliance, checked_key(key))

    async def get(self, key: str) -> bytes | None:
        return self._value("get", lambda values: values.get(self._name(key)))

    async def set(self, key: str, value: bytes, ttl: float | None = None) -> None:
        def work(values: Values) -> None:
            values.put(self._name(key), checked_value(value, abi.VALUE_BYTES), checked_ttl(ttl))

        self._value("set", work)

    async def delete(self, key: str) -> bool:
        return self._value("delete", lambda values: values.delete(self._name(key)))

    async def exists(self, key: str) -> bool:
        return self._value("exists", lambda values: values.lasts(self._name(key))[0])

    async def ttl(self, key: str) -> float | None:
        there, left = self._value("ttl", lambda values: values.lasts(self._name(key)))
        if not there:
            raise NotFound(
                f"there is no value under {key!r}", "it was never set, was deleted, or has expired"
            )
        return left / (1000 * NS_A_MS) if left else None

    async def increment(self, key: str, amount: int = 1, ttl: float | None = None) -> int:
        def work(values: Values) -> int:
            return values.add(self._name(key), checked_amount(amount), checked_ttl(ttl))

        return self._value("increment", work)
