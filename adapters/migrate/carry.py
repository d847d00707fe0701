# SPDX-License-Identifier: Apache-2.0
"""Values and buckets from one store to another while both are in use.

A value is read, written, and read again: if it changed meanwhile, it is carried once more. Whoever writes
last has then seen the last value, so that both stores come to hold the same, whoever else carries it. Buckets
are raised, which commutes and may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.errors import ConsistencyError
from valkyrie.adapters.migrate.compare import value_differs
from valkyrie.adapters.migrate.side import Found, Side, Value

TRIES = 8  # a value that changes as often while it is carried is left to whoever changes it


async def carry_values(
    source: Side, target: Side, keys: Sequence[str], clock: Callable[[], float]
) -> list[str]:
    """Have the target hold what the source holds under these keys; those that cannot be read there."""
    unreadable: list[str] = []
    left = list(dict.fromkeys(keys))
    for _ in range(TRIES):
        if not left:
            break
        found, at = await source.values(left), clock()
        readable = [
            (key, one) for key, one in zip(left, found, strict=True) if not isinstance(one, ConsistencyError)
        ]
        unreadable += [key for key, one in zip(left, found, strict=True) if isinstance(one, ConsistencyError)]
        await target.put_values([(key, _aged(one, clock() - at)) for key, one in readable])
        left = [key for key, _ in readable]
        again, then = await source.values(left), clock()
        left = [
            key for (key, one), other in zip(readable, again, strict=True) if changed(one, at, other, then)
        ]
    return unreadable


def changed(before: Value | None, at: float, after: Found, then: float) -> bool:
    """Whether a value is another one than it was; one that has expired since is not."""
    if isinstance(after, ConsistencyError):
        return True
    if before is None:
        return after is not None
    return value_differs(before, at, after, then) is not None


def _aged(value: Value | None, seconds: float) -> Value | None:
    """A value that was read so long ago, as it is by now; None when it has expired."""
    if value is None or value.left_ms is None:
        return value
    left = value.left_ms - round(seconds * 1000)
    return replace(value, left_ms=left) if left > 0 else None


async def carry_buckets(source: Side, target: Side, names: Sequence[str]) -> None:
    """Raise the target's buckets to what the source's are."""
    levels = await source.levels(names)
    await target.raise_buckets(
        [BucketLevel(name, level) for name, level in zip(names, levels, strict=True) if level > 0]
    )


async def copy_documents(source: Side, target: Side, leave: str) -> None:
    """Those that the target has not; all but `leave`. The owner writes its own to both."""
    there = set(await target.documents())
    for name in await source.documents():
        if name != leave and name not in there:
            content = await source.document(name)
            if content is not None:
                await target.put_document(name, content)
