# SPDX-License-Identifier: Apache-2.0
"""`StoreAdapter` on the kernel's table of this host: a call is a run of the loaded BPF code, some
microseconds without a server or a socket. It works in any privileged process, and while the daemon is away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from valkyrie.adapters.asked import (
    checked_tokens,
)
from valkyrie.adapters.errors import (
    CallRefused,
    OutcomeUnknown,
    StoreConfigurationError,
    StoreConnectionError,
    StoreError,
    StoreUnavailable,
)
from valkyrie.adapters.gcra import decision
from valkyrie.adapters.limit import Limit, LimitBook
from valkyrie.adapters.settings import YggdrasilSettings
from valkyrie.adapters.stats import OperationMeter
from valkyrie.adapters.store import Decision, Feature, Health, Request, StoreStats
from valkyrie.adapters.yggdrasil import checks, targets
from valkyrie.adapters.yggdrasil.errors import as_store_error, opening
from valkyrie.adapters.yggdrasil.flush import flush_buckets
from valkyrie.adapters.yggdrasil.targets import Target, cost_of
from valkyrie.adapters.yggdrasil.value_calls import ValueCalls
from valkyrie.adapters.yggdrasil.values import Values
from valkyrie.control import abi
from valkyrie.control.cost import Cost
from valkyrie.control.dataplane.call import Array, Caller, Stale, Told
from valkyrie.control.errors import InvalidInput, NotFound, ValkyrieError

NAME = "yggdrasil"
STALE_TRIES = 8
KEPT_TARGETS = 1024
PROBE = Limit("probe", Cost(1, 0, 1))
FEATURES = frozenset({Feature.DECLARED_LIMITS})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch:
    """The answers to a batch, in order: `allowed` as booleans, `answers` as abi.CALL_ANSWER."""

    allowed: NDArray[np.bool_]
    answers: Array

    def decisions(self) -> list[Decision]:
        return [
            _decision((level, cost, mult, tau, shift, verdict), n)
            for level, cost, mult, tau, shift, verdict, n in self.answers.tolist()
        ]


class YggdrasilAdapter(ValueCalls):
    """For the tasks of one event loop; a second process or thread has an adapter of its own.

    A call for one key that fails took nothing; only one for many may end in OutcomeUnknown. A shadow limit
    answers as if it enforced; whether to heed it is the caller's to say.
    """

    def __init__(
        self,
        settings: YggdrasilSettings,
        appliance: str,
        book: LimitBook,
        *,
        pin_dir: Path,
        allow_flush: bool = False,
    ) -> None:
        """Raises StoreConfigurationError for settings that cannot hold on this host."""
        checks.check(settings, checks.numa_nodes())
        self._settings = settings
        self._appliance = appliance
        self._book = book
        self._pin_dir = pin_dir
        self._allow_flush = allow_flush
        self._meter = OperationMeter()
        self._targets: dict[str | int, Target] = {}
        self._open: tuple[Caller, Values] | None = None

    async def start(self) -> None:
        """Raises StoreConnectionError if the daemon never made the table, AuthorizationFailed without the
        right to use it, StoreConfigurationError if it is larger than allowed.
        """
        with opening():
            checks.check_memory(self._settings, self._pin_dir)
            caller = Caller(self._pin_dir)
            try:
                self._open = caller, Values(self._pin_dir)
            except BaseException:
                caller.close()
                raise

    async def close(self) -> None:
        if self._open is not None:
            for each in self._open:
                each.close()
            self._open = None

    @property
    def _caller(self) -> Caller:
        return self._opened[0]

    @property
    def _opened(self) -> tuple[Caller, Values]:
        if self._open is None:
            raise StoreConnectionError("the adapter is not started, or closed", "call start()")
        return self._open

    # Buckets.

    async def try_consume(self, key: str, n: int = 1, *, limit: str | Limit) -> Decision:
        with self._meter.timed("try_consume"):
            checked_tokens(n)
            for _ in range(STALE_TRIES):
                target = self._known(limit) or await self._found(limit)
                try:
                    return _decision(self._caller.ask(target.header, target.entry(key, n)), n)
                except Stale:
                    self._targets.clear()
                except InvalidInput:
                    if not self._is_old(target):
                        raise
                    self._targets.clear()
                except (ValkyrieError, OSError) as error:
                    raise as_store_error(error) from error
            raise _changing()

    async def try_consume_many(self, requests: Sequence[Request]) -> list[Decision]:
        """One run of the program for up to 64 requests of one limit."""
        with self._meter.timed("try_consume_many"):
            decisions: list[Decision | None] = [None] * len(requests)
            places = list(range(len(requests)))
            try:
                for _ in range(STALE_TRIES):
                    places = await self._some(requests, places, decisions)
                    if not places:
                        return [one for one in decisions if one is not None]
                    self._targets.clear()
                raise _changing()
            except (StoreError, NotFound) as error:
                raise _in_part(error, begun=any(decisions)) from error

    async def _some(
        self, requests: Sequence[Request], places: list[int], decisions: list[Decision | None]
    ) -> list[int]:
        """Decide what is at the places; which are left, since the ruleset has changed."""
        groups: dict[Target, list[tuple[int, bytes]]] = {}
        for place in places:
            request = requests[place]
            checked_tokens(request.n)
            target = self._known(request.limit) or await self._found(request.limit)
            try:
                entry = target.entry(request.key, request.n)
            except InvalidInput:
                if self._is_old(target):
                    return places
                raise
            groups.setdefault(target, []).append((place, entry))
        left: list[int] = []
        for target, asked in groups.items():
            entries = np.frombuffer(b"".join([entry for _, entry in asked]), abi.CALL_ENTRY)
            answers, stale = self._batch(target, entries)
            found = Batch(answers["verdict"] == abi.CALL_TAKEN, answers).decisions()
            for (place, _), one in zip(asked, found, strict=False):
                decisions[place] = one
            if stale:
                left += [place for place, _ in asked[len(found) :]]
        return left

    async def consume_batch(
        self, keys: Sequence[str] | NDArray[np.uint8], n: int = 1, *, limit: str | Limit
    ) -> Batch:
        """As so many `try_consume` of `n` tokens each of one limit, a million keys a second and more.

        `keys` are texts, or an array (count, 16): for key `id` and callers' own limits what the caller
        hashed himself (naming.opaque is what texts get), for key `src` addresses, IPv4 as ::ffff:a.b.c.d.
        """
        with self._meter.timed("consume_batch"):
            checked_tokens(n)
            parts: list[Array] = []
            done = 0
            for _ in range(STALE_TRIES):
                target = self._known(limit) or await self._found(limit)
                try:
                    answers, stale = self._batch(target, target.entries(keys[done:], n))
                except InvalidInput:
                    if not self._is_old(target):
                        raise
                    answers, stale = np.zeros(0, abi.CALL_ANSWER), True
                except (StoreError, NotFound) as error:
                    raise _in_part(error, begun=done > 0) from error
                parts.append(answers)
                if not stale:
                    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
                    return Batch(whole["verdict"] == abi.CALL_TAKEN, whole)
                done += len(answers)
                self._targets.clear()
            raise _changing()

    def _batch(self, target: Target, entries: Array) -> tuple[Array, bool]:
        """The answers, and whether the rest must be asked again as the ruleset has changed."""
        try:
            return self._caller.consume(target.header, entries), False
        except Stale as stale:
            return stale.args[0], True
        except (ValkyrieError, OSError) as error:
            raise _in_part(as_store_error(error), begun=self._caller.begun) from error

    def _known(self, limit: str | Limit) -> Target | None:
        if isinstance(limit, str):
            return self._targets.get(limit)
        found = self._targets.get(id(limit))
        return found if found is not None and found.limit is limit else None

    async def _found(self, limit: str | Limit) -> Target:
        """Raises NotFound for an unknown name, CallRefused if the kernel has not heard of it."""
        one = await self._book.limit(limit) if isinstance(limit, str) else limit
        target = targets.own(one) if not one.declared else self._in_force(one)
        if target is None and one.uid:
            self._book.forget(one.name)  # a limit with another key has another number
            target = self._in_force(await self._book.limit(one.name))
        if target is None:
            raise CallRefused(
                f"limit {one.name} is not in force in this host's kernel",
                "see `valkyrie-ctl status`: does this process ask the daemon of this host?",
            )
        if len(self._targets) >= KEPT_TARGETS:
            self._targets.clear()
        self._targets[limit if isinstance(limit, str) else id(limit)] = target
        return target

    def _in_force(self, limit: Limit) -> Target | None:
        position = self._caller.position(limit.uid) if limit.uid else None
        return None if position is None else targets.declared(limit, position)

    def _is_old(self, target: Target) -> bool:
        """Whether the limit has another number meanwhile, as it gets with another key."""
        return target.limit.declared and self._caller.position(target.limit.uid) is None

    # The store itself.

    async def health_check(self) -> Health:
        began = time.perf_counter()
        try:
            self._caller.ask(targets.own(PROBE).header, targets.own(PROBE).entry("probe", 0))
            ok, detail = True, f"ruleset {self._caller.serial} in {self._pin_dir}"
        except (ValkyrieError, OSError) as error:
            ok, detail = False, str(as_store_error(error))
        return Health(ok, (time.perf_counter() - began) * 1000, detail)

    def stats(self) -> StoreStats:
        extra: dict[str, int | float | str] = {
            "snapshot_interval_seconds": self._settings.snapshot_interval_seconds,
            "max_values": self._settings.max_values,
        }
        if self._open is not None:
            extra["ruleset"] = self._caller.serial
        return StoreStats(NAME, int(self._open is not None), self._meter.snapshot(), extra)

    @property
    def backend_name(self) -> str:
        return NAME

    def supports_feature(self, feature: Feature) -> bool:
        return feature in FEATURES

    async def flush_all(self) -> int:
        """Bans stay: they are the appliance's."""
        if not self._allow_flush:
            raise StoreConfigurationError(
                "flush_all is not allowed", "set store.allow_flush if all buckets and values may be deleted"
            )
        values = self._value("flush_all", lambda values: values.flush())
        return values + await asyncio.to_thread(flush_buckets, self._pin_dir, time.monotonic_ns())


def _decision(told: Told, n: int) -> Decision:
    level, _, mult, tau, shift, verdict = told
    return decision(level, cost_of(mult, shift, tau), n, verdict == abi.CALL_TAKEN, NAME)


def _in_part(error: Exception, *, begun: bool) -> Exception:
    """What a call for many keys raises that failed when tokens of some may have been taken."""
    if not begun or isinstance(error, OutcomeUnknown):
        return error
    return OutcomeUnknown(f"tokens of some keys were taken: {error}", "ask with n = 0 what is left")


def _changing() -> StoreUnavailable:
    return StoreUnavailable("the ruleset changes all the time", "ask again")
