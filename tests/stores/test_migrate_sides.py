# SPDX-License-Identifier: Apache-2.0
"""A store as a side of a migration is read whole and emptied of this appliance alone; also a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.clusters import Cluster
from support.migrating import OWN, fill
from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.migrate.carry import carry_buckets, carry_values
from valkyrie.adapters.migrate.passes import Comparison
from valkyrie.adapters.migrate.side import BEGINNING, Side, Value
from valkyrie.adapters.naming import bucket_of
from valkyrie.adapters.redis import RedisAdapter
from valkyrie.adapters.secrets import NoSecrets
from valkyrie.adapters.settings import RedisSettings


@asynccontextmanager
async def side(cluster: Cluster, appliance: str) -> AsyncIterator[Side]:
    settings = RedisSettings(
        url=cluster.url.replace("valkey:", "redis:"), cluster_mode=True, timeout_ms=10_000
    )
    async with RedisAdapter(settings, appliance, StaticBook(), NoSecrets()) as adapter:
        yield adapter.side()


async def keys_of(one: Side) -> tuple[set[str], set[str]]:
    buckets: set[str] = set()
    values: set[str] = set()
    at: str | None = BEGINNING
    while at is not None:
        levels, at = await one.bucket_page(at)
        buckets |= {level.name for level in levels}
    at = BEGINNING
    while at is not None:
        keys, at = await one.key_page(at)
        values |= set(keys)
    return buckets, values


async def test_a_cluster_is_read_whole_by_pages_and_emptied_of_one_appliance_alone(
    resp_cluster: Cluster,
) -> None:
    async with side(resp_cluster, "edge") as edge, side(resp_cluster, "edge.7") as other:
        await fill(edge, 3000, 500)
        await fill(other, 0, 50)
        await carry_buckets(edge, other, [bucket_of(OWN, f"user-{number}") for number in range(50)])
        await edge.put_document("state", b"x" * (2 << 20))
        buckets, values = await keys_of(edge)
        assert buckets == {bucket_of(OWN, f"user-{number}") for number in range(3000)}
        assert values == {f"value-{number}" for number in range(500)}
        assert await edge.count() == 3500
        assert await edge.document("state") == b"x" * (2 << 20)
        report = await Comparison(edge, other, repair=True).run()
        assert report.differences == {"bucket-behind": 2950, "value-missing": 450, "document-missing": 1}
        assert (await Comparison(edge, other).run()).same
        while await edge.wipe():
            pass
        assert await edge.count() == 0
        assert await edge.documents() == []
        assert await other.count() == 3500
        await other.wipe()


async def test_a_value_that_is_deleted_while_it_is_carried_does_not_come_back(resp_cluster: Cluster) -> None:
    async with side(resp_cluster, "edge") as source, side(resp_cluster, "edge-2") as target:
        await source.put_values([("a", Value(b"1", None)), ("b", Value(b"2", 60_000))])

        class Deletes:
            """The target, in front of which a caller deletes just as the value is written."""

            def __getattr__(self, name: str) -> object:
                return getattr(target, name)

            async def put_values(self, values: list[tuple[str, Value | None]]) -> None:
                await source.put_values([("a", None)])
                await target.put_values(values)

        meanwhile: Side = Deletes()  # type: ignore[assignment]
        await carry_values(source, meanwhile, ["a", "b"], lambda: 0.0)
        gone, kept = await target.values(["a", "b"])
        assert gone is None
        assert isinstance(kept, Value)
        assert kept.content == b"2"
        await source.wipe()
        await target.wipe()
