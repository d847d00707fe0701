# SPDX-License-Identifier: Apache-2.0
"""The programs for calls beside a loaded `police`, and an adapter on them whose clock the test sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from support.bpf import TEST_MAGIC, Kernel, loaded
from support.policy import Published, publish
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.settings import YggdrasilSettings
from valkyrie.adapters.yggdrasil.adapter import YggdrasilAdapter
from valkyrie.adapters.yggdrasil.values import Values
from valkyrie.control.abi import CALL_TAKEN
from valkyrie.control.dataplane import build, call
from valkyrie.control.dataplane.call import Caller, Told
from valkyrie.control.dataplane.call_entry import entry_of
from valkyrie.control.dataplane.keyname import record_of
from valkyrie.control.errors import NotFound
from valkyrie.control.limits import Desired
from valkyrie.control.limits import Limit as Rule

ROOM = 64
"""Values that the test's map holds."""


class Book:
    """What is in force, by name."""

    def __init__(self) -> None:
        self.limits: dict[str, Limit] = {}
        self.asked = 0
        self.forgotten = ""

    async def limit(self, name: str) -> Limit:
        self.asked += 1
        if name not in self.limits:
            raise NotFound(f"no limit {name}")
        return self.limits[name]

    def forget(self, name: str) -> None:
        self.forgotten = name


@dataclass
class Calls:
    """One appliance's kernel side as an application sees it."""

    kernel: Kernel
    caller: Caller
    book: Book

    def publish(
        self, rules: Sequence[Rule] = (), *, desired: Desired | None = None, **settings: Any
    ) -> Published:
        """Put limits in force and tell the book."""
        wanted = desired or Desired.of(rules)
        published = publish(self.kernel, desired=wanted, **settings)
        self.book.limits = {
            rule.name: Limit(rule.name, rule.cost, True, rule.key_spec, published.numbers[rule.name].uid)
            for rule in wanted.limits
        }
        return published

    def ask(self, name: str, key: str, now_ns: int, n: int = 1) -> Told:
        """One call on a declared limit at a set time."""
        limit = self.book.limits[name]
        position = self.caller.position(limit.uid)
        assert position is not None
        header = call.at_time(call.declared(limit.uid, position), TEST_MAGIC, now_ns)
        return self.caller.ask(header, entry_of(record_of(key, limit.key), limit.key, n))

    def takes(self, name: str, key: str, now_ns: int, n: int = 1) -> bool:
        return self.ask(name, key, now_ns, n)[5] == CALL_TAKEN

    def forget_values(self) -> None:
        """As if none had ever been set."""
        values = Values(self.kernel.dp.pin_dir)
        values.flush()
        values.close()

    def adapter(self, **settings: Any) -> YggdrasilAdapter:
        return YggdrasilAdapter(
            YggdrasilSettings(**settings), "edge", self.book, pin_dir=self.kernel.dp.pin_dir, allow_flush=True
        )


@contextmanager
def served(name: str, sets: int) -> Iterator[Calls]:
    """Everything built and pinned under that name; gone afterwards."""
    with loaded(name, sets) as kernel:
        build.run_loader(kernel.dp.pin_dir, kernel.dp.sizes, more=("--values", str(ROOM)))
        with Caller(kernel.dp.pin_dir) as caller:
            yield Calls(kernel, caller, Book())
