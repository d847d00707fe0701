# SPDX-License-Identifier: Apache-2.0
"""The appliance's buckets in a server or cluster: DurableStore on a RespClient."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from struct import Struct

from valkyrie.adapters.durable import MAX_LEVEL, BucketLevel
from valkyrie.adapters.gcra import UNITS_A_US
from valkyrie.adapters.naming import SHARDS, bucket_key, owner_key, shard_of
from valkyrie.adapters.resp.documents import Documents
from valkyrie.adapters.resp.scripts import DROP, LEVELS, RAISE

MOST_A_CALL = 50  # buckets: a quarter of a millisecond of the server's, in which it serves nobody else
MOST_A_READ = 1000
_LEVEL = Struct("<dH")
_VALUE = re.compile(rb"(\d{1,16}):(\d{1,5})")

_Call = tuple[Sequence[str], Sequence[int]]  # owner's records, and which of the buckets


class RespDurable(Documents):
    """DurableStore. What is written lies as safe as the server's own settings have it (appendonly)."""

    @property
    def batch(self) -> int:
        """All shards together; each call takes MOST_A_CALL of it, and others are served between."""
        return SHARDS * MOST_A_CALL

    @cached_property
    def _owners(self) -> list[str]:
        return [owner_key(self._appliance, shard) for shard in range(SHARDS)]

    @cached_property
    def _groups(self) -> list[int]:
        return [self._client.slot_group(key) for key in self._owners]

    async def write_buckets(self, buckets: Sequence[BucketLevel], token: str) -> None:
        """One call after the other: what was written before a refusal stays, and was the owner's then."""
        short = [bucket for bucket in buckets if bucket.level > 0]
        for owners, which in self._calls([bucket.name for bucket in short]):
            keys = [*owners, *(bucket_key(self._appliance, short[index].name) for index in which)]
            levels = b"".join(packed_level(short[index].level) for index in which)
            args = (token, len(owners), levels)
            self.check_written(await self._client.script(RAISE, keys, args, repeatable=True))

    async def drop_buckets(self, names: Sequence[str], token: str) -> None:
        for owners, which in self._calls(names):
            keys = [*owners, *(bucket_key(self._appliance, names[index]) for index in which)]
            self.check_written(await self._client.script(DROP, keys, (token, len(owners)), repeatable=True))

    async def buckets(self) -> AsyncIterator[Sequence[BucketLevel]]:
        """By SCAN on every primary. A key that holds no bucket is left out: nothing is known of it."""
        ours = re.compile(rf"vk:\{{{re.escape(self._appliance)}\.(\d{{1,2}})\}}:b:(.+)")
        async for found in self._client.scan(f"vk:{{{self._appliance}.*}}:b:*", MOST_A_READ):
            groups: dict[int, tuple[list[str], list[str]]] = {}
            for match in filter(None, map(ours.fullmatch, found)):
                shard, name = int(match[1]), match[2]
                if shard < SHARDS:
                    keys, names = groups.setdefault(self._groups[shard], ([], []))
                    keys.append(match[0])
                    names.append(name)
            for keys, names in groups.values():
                for start in range(0, len(keys), MOST_A_READ):
                    part = slice(start, start + MOST_A_READ)
                    if levels := await self._read(keys[part], names[part]):
                        yield levels

    async def _read(self, keys: list[str], names: list[str]) -> list[BucketLevel]:
        clock, values = await self._client.script(LEVELS, keys, [], repeatable=True)
        now = int(clock)
        return [
            BucketLevel(name, level)
            for name, value in zip(names, values, strict=True)
            if value is not None and (level := level_in(value, now)) > 0
        ]

    def _calls(self, names: Sequence[str]) -> Iterator[_Call]:
        """Share the buckets out to calls: of one slot group, neighbours by shard, few enough at once."""
        shards = [shard_of(name) for name in names]
        order = sorted(range(len(names)), key=lambda index: (self._groups[shards[index]], shards[index]))
        for _, together in groupby(order, key=lambda index: self._groups[shards[index]]):
            group = list(together)
            for start in range(0, len(group), MOST_A_CALL):
                which = group[start : start + MOST_A_CALL]
                yield [self._owners[shard] for shard in sorted({shards[index] for index in which})], which


def packed_level(level: int) -> bytes:
    """As raise.lua reads it: microseconds, which are exact in a double up to MAX_LEVEL, and units."""
    us, units = divmod(min(level, MAX_LEVEL), UNITS_A_US)
    return _LEVEL.pack(us, units)


def level_in(value: bytes, now: int) -> int:
    """How far a bucket's TAT lies ahead of now (us), in units; 0 for a value that is no bucket's."""
    match = _VALUE.fullmatch(value)
    return 0 if match is None else (int(match[1]) - now) * UNITS_A_US + int(match[2])
