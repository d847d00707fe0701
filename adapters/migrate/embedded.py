# SPDX-License-Identifier: Apache-2.0
"""The embedded store as a side of a migration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from valkyrie.adapters.durable import BucketLevel
from valkyrie.adapters.embedded.buckets import READ
from valkyrie.adapters.embedded.file import StoreFile
from valkyrie.adapters.embedded.values import Values
from valkyrie.adapters.embedded.writer import Act
from valkyrie.adapters.migrate.side import BUCKETS_AT_ONCE, VALUES_AT_ONCE, Found, Value, chunks
from valkyrie.control.cost import UNITS_A_NS

PAGE = 500
WIPED = 500
NS_A_MS = 1_000_000

KEYS = "SELECT key FROM contents WHERE appliance = ? AND key > ? ORDER BY key LIMIT ?"
NAMES = "SELECT name FROM documents WHERE appliance = ? ORDER BY name"
READ_VALUE = "SELECT value, expires FROM contents WHERE appliance = ? AND key = ? AND ifnull(expires > ?, 1)"
PUT_DOCUMENT = """INSERT INTO documents VALUES (?, ?, ?)
  ON CONFLICT DO UPDATE SET content = excluded.content"""
GET_DOCUMENT = "SELECT content FROM documents WHERE appliance = ? AND name = ?"
DROP_DOCUMENT = "DELETE FROM documents WHERE appliance = ? AND name = ?"
COUNT = """SELECT (SELECT count(*) FROM buckets WHERE appliance = ?1) +
  (SELECT count(*) FROM contents WHERE appliance = ?1)"""
WIPE = (
    """DELETE FROM buckets WHERE appliance = ?1 AND name IN
  (SELECT name FROM buckets WHERE appliance = ?1 LIMIT ?2)""",
    "DELETE FROM contents WHERE id IN (SELECT id FROM contents WHERE appliance = ?1 LIMIT ?2)",
    """DELETE FROM documents WHERE appliance = ?1 AND name IN
  (SELECT name FROM documents WHERE appliance = ?1 LIMIT ?2)""",
)
DISOWN = "UPDATE appliances SET token = NULL WHERE id = ?"


class EmbeddedSide:
    """The number of the appliance in the file stays when it is wiped: whoever has the file open uses it."""

    def __init__(self, file: StoreFile, values: Callable[[Act], Values]) -> None:
        self._file = file
        self._values_of = values

    async def bucket_page(self, at: str) -> tuple[Sequence[BucketLevel], str | None]:
        return await self._file.run(
            lambda act: act.buckets.page(self._file.appliance, at, PAGE), writes=False, rows=PAGE
        )

    async def levels(self, names: Sequence[str]) -> list[int]:
        def job(act: Act) -> list[int]:
            act.buckets.flush()
            now = act.now * UNITS_A_NS
            rows = [act.connection.execute(READ, (self._file.appliance, name)).fetchone() for name in names]
            return [max(0, row[0] * UNITS_A_NS + row[1] - now) if row else 0 for row in rows]

        return await self._file.run(job, writes=False, rows=len(names))

    async def raise_buckets(self, buckets: Sequence[BucketLevel]) -> None:
        for part in chunks(buckets, BUCKETS_AT_ONCE):
            await self._file.run(
                lambda act, part=part: act.buckets.raise_to(self._file.appliance, part),  # type: ignore[misc]
                rows=len(part),
            )

    async def forget_buckets(self, names: Sequence[str]) -> None:
        for part in chunks(names, BUCKETS_AT_ONCE):
            await self._file.run(
                lambda act, part=part: act.buckets.drop(self._file.appliance, part),  # type: ignore[misc]
                rows=len(part),
            )

    async def key_page(self, at: str) -> tuple[Sequence[str], str | None]:
        def job(act: Act) -> list[str]:
            rows = act.connection.execute(KEYS, (self._file.appliance, at.encode(), PAGE)).fetchall()
            return [bytes(row[0]).decode() for row in rows]

        found = await self._file.run(job, writes=False, rows=PAGE)
        return found, found[-1] if len(found) == PAGE else None

    async def values(self, keys: Sequence[str]) -> list[Found]:
        def read(act: Act, key: str) -> Found:
            row = act.connection.execute(READ_VALUE, (self._file.appliance, key.encode(), act.now)).fetchone()
            if row is None:
                return None
            return Value(bytes(row[0]), None if row[1] is None else max(1, (row[1] - act.now) // NS_A_MS))

        found: list[Found] = []
        for part in chunks(keys, VALUES_AT_ONCE):
            found += await self._file.run(
                lambda act, part=part: [read(act, key) for key in part],  # type: ignore[misc]
                writes=False,
                rows=len(part),
            )
        return found

    async def put_values(self, values: Sequence[tuple[str, Value | None]]) -> None:
        for key, value in values:  # a job each: one that finds no room may not leave another half done
            name = key.encode()
            if value is None:
                await self._file.run(lambda act, name=name: self._values_of(act).delete(name))  # type: ignore[misc]
            else:
                await self._file.run(
                    lambda act, name=name, value=value: self._values_of(act).put(  # type: ignore[misc]
                        name, value.content, value.left_ms
                    ),
                    size=len(value.content),
                )

    async def documents(self) -> list[str]:
        return await self._file.run(
            lambda act: [row[0] for row in act.connection.execute(NAMES, (self._file.appliance,))],
            writes=False,
        )

    async def document(self, name: str) -> bytes | None:
        def job(act: Act) -> bytes | None:
            row = act.connection.execute(GET_DOCUMENT, (self._file.appliance, name)).fetchone()
            return bytes(row[0]) if row else None

        return await self._file.run(job, writes=False)

    async def put_document(self, name: str, content: bytes) -> None:
        given = (self._file.appliance, name, content)
        await self._file.run(
            lambda act: act.connection.execute(PUT_DOCUMENT, given).rowcount, size=len(content)
        )

    async def drop_document(self, name: str) -> None:
        await self._file.run(
            lambda act: act.connection.execute(DROP_DOCUMENT, (self._file.appliance, name)).rowcount
        )

    async def count(self) -> int:
        def job(act: Act) -> int:
            act.buckets.flush()
            return int(act.connection.execute(COUNT, (self._file.appliance,)).fetchone()[0])

        return await self._file.run(job, writes=False)

    async def wipe(self) -> int:
        def job(act: Act) -> int:
            act.buckets.flush()
            act.connection.execute(DISOWN, (self._file.appliance,))
            given = (self._file.appliance, WIPED)
            return sum(act.connection.execute(statement, given).rowcount for statement in WIPE)

        return await self._file.run(job, rows=WIPED)
