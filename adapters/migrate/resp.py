# SPDX-License-Identifier: Apache-2.0
"""A Redis or Valkey server or cluster as a side of a migration."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.errors import ConsistencyError
from valkyrie.adapters.migrate.side import BUCKETS_AT_ONCE, VALUES_AT_ONCE, Found, Value, chunks
from valkyrie.adapters.naming import (
    SHARDS,
    bucket_key,
    claim_key,
    document_key,
    owner_key,
    part_key,
    shard_of,
    value_key,
)
from valkyrie.adapters.resp.client import RespClient
from valkyrie.adapters.resp.durable import level_in, packed_level
from valkyrie.adapters.resp.info import PROBE
from valkyrie.adapters.resp.scripts import LEVELS, RAISE

NO_KEY, NO_TTL = -2, -1  # what PTTL says
PIECE = 1 << 20
WIPED = 250

Code = Callable[[str, bytes], bytes]  # of a value as it lies under a key


class RespSide:
    """`encode` and `decode` are the adapter's own."""

    def __init__(self, client: RespClient, appliance: str, encode: Code, decode: Code) -> None:
        self._client = client
        self._appliance = appliance
        self._encode = encode
        self._decode = decode
        name = re.escape(appliance)
        shards = "|".join(map(str, range(SHARDS)))
        self._bucket = re.compile(rf"vk:\{{{name}\.(?:{shards})\}}:b:(.+)", re.DOTALL)
        # Exactly: an appliance `edge.7` has its documents where `edge` has a shard's buckets.
        self._ours = re.compile(
            rf"vk:\{{{name}\.(?:{shards})\}}:(?:b:.+|owner)|vk:\{{{name}\}}:(?:claim|(?:doc|part|kv):.*)",
            re.DOTALL,
        )

    async def bucket_page(self, at: str) -> tuple[Sequence[BucketLevel], str | None]:
        found, after = await self._client.page(f"vk:{{{self._appliance}.*}}:b:*", at)
        names = [match[1] for match in map(self._bucket.fullmatch, found) if match]
        levels = zip(names, await self.levels(names), strict=True)
        return [BucketLevel(name, level) for name, level in levels if level > 0], after

    async def levels(self, names: Sequence[str]) -> list[int]:
        found = [0] * len(names)
        for which in self._calls(names):
            keys = [bucket_key(self._appliance, names[index]) for index in which]
            clock, values = await self._client.script(LEVELS, keys, [], repeatable=True)
            for index, value in zip(which, values, strict=True):
                found[index] = 0 if value is None else max(0, level_in(value, int(clock)))
        return found

    async def raise_buckets(self, buckets: Sequence[BucketLevel]) -> None:
        short = [bucket for bucket in buckets if bucket.level > 0]
        for which in self._calls([bucket.name for bucket in short]):
            keys = [bucket_key(self._appliance, short[index].name) for index in which]
            levels = b"".join(packed_level(short[index].level) for index in which)
            await self._client.script(RAISE, keys, ("", 0, levels), repeatable=True)  # of no owner's record

    async def forget_buckets(self, names: Sequence[str]) -> None:
        await self._unlink([bucket_key(self._appliance, name) for name in names])

    async def key_page(self, at: str) -> tuple[Sequence[str], str | None]:
        before = value_key(self._appliance, "")
        found, after = await self._client.page(f"{before}*", at)
        keys = [key.removeprefix(before) for key in found if key.startswith(before)]
        return [key for key in keys if key != PROBE], after

    async def values(self, keys: Sequence[str]) -> list[Found]:
        found: list[Found] = []
        for part in chunks(keys, VALUES_AT_ONCE):
            try:
                found += await self._read(part)
            except ConsistencyError:  # one of them is no value at all
                for key in part:
                    try:
                        found += await self._read([key])
                    except ConsistencyError as error:
                        found.append(error)
        return found

    async def _read(self, keys: Sequence[str]) -> list[Found]:
        names = [value_key(self._appliance, key) for key in keys]
        commands = [word for name in names for word in (("GET", name), ("PTTL", name))]
        replies = await self._client.pipeline(commands, repeatable=True)
        return [self._value(*one) for one in zip(names, replies[::2], replies[1::2], strict=True)]

    def _value(self, name: str, stored: bytes | None, left: int) -> Found:
        if stored is None or left == NO_KEY:
            return None
        try:
            return Value(self._decode(name, stored), None if left == NO_TTL else left)
        except ConsistencyError as error:
            return error

    async def put_values(self, values: Sequence[tuple[str, Value | None]]) -> None:
        for part in chunks(values, VALUES_AT_ONCE):
            await self._client.pipeline([self._command(key, value) for key, value in part], repeatable=True)

    def _command(self, key: str, value: Value | None) -> tuple[str | bytes | int, ...]:
        name = value_key(self._appliance, key)
        if value is None:
            return ("DEL", name)
        stored = self._encode(name, value.content)
        return ("SET", name, stored, *(() if value.left_ms is None else ("PX", max(1, value.left_ms))))

    async def documents(self) -> list[str]:
        before = document_key(self._appliance, "")
        names: set[str] = set()
        async for found in self._client.scan(f"{before}*"):
            names.update(key.removeprefix(before) for key in found if key.startswith(before))
        return sorted(names)

    async def document(self, name: str) -> bytes | None:
        content: bytes | None = await self._client.run(
            "GET", document_key(self._appliance, name), repeatable=True
        )
        return content

    async def put_document(self, name: str, content: bytes) -> None:
        """The record of what the owner wrote is forgotten, so that it does not take this for its own."""
        whole, part = document_key(self._appliance, name), part_key(self._appliance, name, "whole")
        if len(content) <= PIECE:
            await self._client.run("SET", whole, content, repeatable=True)
        else:
            await self._client.run("UNLINK", part, repeatable=True)
            for at in range(0, len(content), PIECE):
                await self._client.run("APPEND", part, content[at : at + PIECE], repeatable=False)
            await self._client.run("RENAME", part, whole, repeatable=False)
        await self._client.run("HDEL", claim_key(self._appliance), f"doc:{name}", repeatable=True)

    async def drop_document(self, name: str) -> None:
        await self._unlink([document_key(self._appliance, name)])

    async def count(self) -> int:
        before, probe = value_key(self._appliance, ""), value_key(self._appliance, PROBE)
        total = 0
        async for found in self._client.scan(f"vk:{{{self._appliance}*"):
            values = sum(key.startswith(before) and key != probe for key in found)
            total += values + sum(bool(self._bucket.fullmatch(key)) for key in found)
        return total

    async def wipe(self) -> int:
        gone = 0
        async for found in self._client.scan(f"vk:{{{self._appliance}*"):
            gone += await self._unlink([key for key in found if self._ours.fullmatch(key)])
        return gone

    async def _unlink(self, keys: Sequence[str]) -> int:
        gone = 0
        for part in chunks(keys, WIPED):
            gone += sum(await self._client.pipeline([("UNLINK", key) for key in part], repeatable=True))
        return gone

    def _calls(self, names: Sequence[str]) -> Iterator[Sequence[int]]:
        """Places of the names that may share a call, few enough at once."""
        groups: dict[int, list[int]] = {}
        for index, name in enumerate(names):
            group = self._client.slot_group(owner_key(self._appliance, shard_of(name)))
            groups.setdefault(group, []).append(index)
        for places in groups.values():
            yield from chunks(places, BUCKETS_AT_ONCE)
