# SPDX-License-Identifier: Apache-2.0
"""Books of limits: what the daemon, a store or the caller says of a limit, and what of it is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import zstandard

from support.fake_api import FakeApi, serving
from valkyrie.adapters.asked import cost_for
from valkyrie.adapters.books import (
    OLD,
    ApiBook,
    FirstBook,
    StaticBook,
    StoreBook,
    limit_from,
)
from valkyrie.adapters.durable import DurableStore
from valkyrie.adapters.errors import ConsistencyError, StoreUnavailable
from valkyrie.control.cost import cost_of
from valkyrie.control.durable.document import pack_state
from valkyrie.control.errors import InvalidInput, NotFound
from valkyrie.control.limits import Desired
from valkyrie.control.limits import Limit as Declared
from valkyrie.control.service.world import World
from valkyrie.control.units import parse_rate

WEB: dict[str, Any] = {"name": "web", "key": "src", "rate": "5/s", "burst": "5", "uid": 7}
ENTRY = {"match": "", "burst": None, "ban_for": None, "measure": "packets", "action": "drop"}


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    made = FakeApi()
    made.limits["web"] = {**ENTRY, **WEB}
    with serving(tmp_path / "v.sock", made):
        yield made


def test_a_limit_from_an_entry_has_its_figures_and_overrides() -> None:
    limit = limit_from({**WEB, "overrides": [{"prefix": "203.0.113.0/24", "rate": "9/s", "burst": "9"}]})
    assert (limit.name, limit.declared, limit.uid) == ("web", True, 7)
    assert cost_for(limit, "192.0.2.1") == cost_of(parse_rate("5/s"), 5)
    assert cost_for(limit, "203.0.113.8") == cost_of(parse_rate("9/s"), 9)


def test_overrides_of_a_key_without_a_source_go_by_the_destination() -> None:
    entry = {**WEB, "key": "dst", "overrides": [{"prefix": "203.0.113.0/24", "rate": "9/s"}]}
    overrides = limit_from(entry).overrides
    assert overrides is not None
    assert overrides.destination


def test_a_wrong_entry_is_refused() -> None:
    with pytest.raises(InvalidInput):
        limit_from({**WEB, "rate": "fast"})


async def test_what_the_daemon_says_is_asked_once_and_kept(api: FakeApi, tmp_path: Path) -> None:
    book = ApiBook(tmp_path / "v.sock", clock=Time())
    found = await asyncio.gather(*(book.limit("web") for _ in range(20)))
    assert len(api.requests) == 1
    assert found[0].uid == 1
    assert found[0] is found[19]


async def test_an_old_answer_is_asked_for_again_and_only_what_changed_comes(
    api: FakeApi, tmp_path: Path
) -> None:
    clock = Time()
    book = ApiBook(tmp_path / "v.sock", fresh_s=1, clock=clock)
    first = await book.limit("web")
    clock.now += OLD + 1
    assert await book.limit("web") is first
    assert api.requests[-1].query == {"name": "web", "serial": "0"}
    api.limits["web"]["rate"] = "9/s"
    api.requests.append(type(api.requests[0])("PUT", "/", {}, None))
    clock.now += OLD + 1
    assert (await book.limit("web")).cost == cost_of(parse_rate("9/s"), 5)


async def test_names_that_are_unknown_are_not_asked_again_at_once(api: FakeApi, tmp_path: Path) -> None:
    clock = Time()
    book = ApiBook(tmp_path / "v.sock", clock=clock)
    for _ in range(5):
        with pytest.raises(NotFound):
            await book.limit("nowhere")
    assert len(api.requests) == 1
    api.limits["nowhere"] = {**ENTRY, **WEB, "name": "nowhere"}
    clock.now += 2
    assert (await book.limit("nowhere")).name == "nowhere"


async def test_a_daemon_that_is_away_leaves_what_is_known_in_use(tmp_path: Path) -> None:
    clock, made = Time(), FakeApi()
    made.limits["web"] = {**ENTRY, **WEB}
    book = ApiBook(tmp_path / "v.sock", clock=clock)
    with serving(tmp_path / "v.sock", made):
        first = await book.limit("web")
    clock.now += 3600
    assert await book.limit("web") is first
    with pytest.raises(StoreUnavailable, match="valkyried"):
        await book.limit("other")


async def test_what_is_no_daemon_is_said_to_be_none(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, tmp_path / "v.sock")
    async with server:
        with pytest.raises(StoreUnavailable, match="cannot be asked"):
            await ApiBook(tmp_path / "v.sock").limit("web")


class Documents:
    def __init__(self, raw: bytes | None) -> None:
        self.raw = raw

    async def get_document(self, name: str) -> bytes | None:
        assert name == "state"
        return self.raw


def book_of(raw: bytes | None) -> StoreBook:
    return StoreBook(lambda: cast("DurableStore", Documents(raw)))


async def test_what_the_sync_writes_is_what_a_book_reads() -> None:
    desired = Desired.of([Declared(name="web", key="src", rate="5/s", burst="5")])
    book = book_of(pack_state(World(desired), 3, "edge", "m"))
    assert (await book.limit("web")).cost == cost_of(parse_rate("5/s"), 5)
    with pytest.raises(NotFound):
        await book.limit("other")


async def test_a_store_without_the_document_says_that_it_is_not_there() -> None:
    with pytest.raises(StoreUnavailable, match="no limits"):
        await book_of(None).limit("web")


async def test_a_document_that_is_none_and_one_of_a_later_version_are_refused() -> None:
    later = zstandard.compress(json.dumps({"version": 2, "policy": {"limits": []}}).encode())
    for raw in (b"junk", zstandard.compress(b"[]"), later):
        with pytest.raises(ConsistencyError):
            await book_of(raw).limit("web")


async def test_the_first_book_that_can_be_asked_decides(tmp_path: Path) -> None:
    away = ApiBook(tmp_path / "nobody.sock")
    assert (await FirstBook([away, StaticBook([limit_from(WEB)])]).limit("web")).uid == 7
    with pytest.raises(NotFound):
        await FirstBook([StaticBook(), StaticBook([limit_from(WEB)])]).limit("web")
    with pytest.raises(StoreUnavailable):
        await FirstBook([away]).limit("web")
