# SPDX-License-Identifier: Apache-2.0
"""Drops in words: with limit, key, reason and NIC; kept in bounded number; told to followers in bounds."""

import asyncio
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.workbench import ADMIN, WEB, Bench
from valkyrie.control import abi
from valkyrie.control.enums import Reason
from valkyrie.control.errors import NotFound
from valkyrie.control.notes import DROP
from valkyrie.control.service import events as hub_of
from valkyrie.control.service.drops import KEPT, LIVE

LOOPBACK = 1


def drop(bench: Bench, slot: int, source: str, **fields: int) -> NDArray[np.void]:
    """One event, now, at the loopback."""
    event = np.zeros(1, abi.EVENT)
    for name, text in (("src", source), ("dst", "192.0.2.1")):
        address = ip_address(text)
        raw = address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
        event[name] = np.frombuffer(raw, np.uint64)
    event["time"], event["ifindex"], event["slot"] = int(bench.time.now * 1e9), LOOPBACK, slot
    event["protocol"], event["dport"], event["reason"] = 6, 443, Reason.LIMIT
    for name, value in fields.items():
        event[name] = value
    return event


async def web(bench: Bench, **fields: Any) -> int:
    await bench.service.limits.put(ADMIN, "web", {**WEB, **fields})
    return bench.service.core.world.allotment.slots["web"].slot


@pytest.mark.parametrize(
    ("key", "source", "told"),
    [
        ("src/24", "203.0.113.7", "203.0.113.0/24"),
        ("src", "2001:db8::7", "2001:db8::/64"),
        ("src+dport", "203.0.113.7", "203.0.113.7 dport 443"),
        ("flow", "203.0.113.7", "203.0.113.7>192.0.2.1 proto tcp sport 0 dport 443"),
        ("global", "203.0.113.7", "global"),
    ],
)
async def test_a_drop_is_told_with_limit_key_reason_and_nic(
    bench: Bench, key: str, source: str, told: str
) -> None:
    slot = await web(bench, key=key)
    bench.service.drops.take(drop(bench, slot, source))
    (event,) = bench.service.views.last_events(5)["events"]
    assert (event["limit"], event["key"], event["reason"], event["nic"]) == ("web", told, "limit", "lo")
    assert (event["src"], event["time"], event["shadow"]) == (source, bench.time.now, False)
    assert list(event) == [name for names in DROP for name in names], "as the catalogue has them"


async def test_a_drop_keeps_the_name_that_its_limit_had(bench: Bench) -> None:
    slot = await web(bench)
    bench.service.drops.take(drop(bench, slot, "192.0.2.9"))
    await bench.service.limits.delete(ADMIN, "web")
    bench.service.drops.take(drop(bench, slot, "192.0.2.9"))
    assert [event["limit"] for event in bench.service.views.last_events(5)["events"]] == ["web", None]


async def test_the_last_events_are_kept_in_bounded_number(bench: Bench) -> None:
    slot = await web(bench)
    for port in range(3 * KEPT):
        bench.service.drops.take(drop(bench, slot, "192.0.2.9", sport=port))
    assert sum(len(batch.events) for batch in bench.service.drops._kept) < 2 * KEPT
    ports = [event["sport"] for event in bench.service.views.last_events(KEPT)["events"]]
    assert ports == list(range(2 * KEPT, 3 * KEPT))
    bench.service.drops.take(np.repeat(drop(bench, slot, "192.0.2.9"), 5 * KEPT))
    assert sum(len(batch.events) for batch in bench.service.drops._kept) == KEPT


async def test_more_drops_than_people_read_are_told_as_lost_and_counted_all(bench: Bench) -> None:
    slot, hub = await web(bench), bench.service.hub
    follower = hub.join()
    bench.service.drops.take(np.repeat(drop(bench, slot, "192.0.2.9"), LIVE + 5000))
    told = 0
    async for event in follower:
        told += event.get("lost", 1)
        if event["kind"] == "lost":
            break
    assert told == LIVE + 5000
    (talker,) = bench.service.talkers.top(5)
    assert talker["dropped"] == LIVE + 5000


async def test_a_loss_is_told_also_if_nothing_happens_after_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_of, "TELL_S", 0.01)
    slot, follower = await web(bench), bench.service.hub.join()
    bench.service.drops.take(np.repeat(drop(bench, slot, "192.0.2.9"), LIVE))
    told = aiter(follower)
    for _ in range(LIVE):
        assert (await anext(told))["kind"] == "drop"
    bench.service.drops.take(np.repeat(drop(bench, slot, "192.0.2.9"), 5))
    bench.service.drops.take(np.repeat(drop(bench, slot, "192.0.2.9"), 2))
    async with asyncio.timeout(5):
        assert (await anext(told))["lost"] == 7


async def test_sampled_drops_count_for_those_that_were_not_reported(bench: Bench) -> None:
    slot = await web(bench)
    events = bench.settings.events.model_copy(update={"sample": 50})
    await bench.service.reload(bench.settings.model_copy(update={"events": events}))
    bench.service.drops.take(np.repeat(drop(bench, slot, "192.0.2.9"), 3))
    bench.service.drops.take(drop(bench, slot, "192.0.2.8", shadow=1))
    answer = await bench.service.views.top(5, "web")
    assert [(row["dropped"], row["would_drop"]) for row in answer["talkers"]] == [(150, 0), (0, 50)]
    assert answer["events"] == {"sent": 0, "lost": 0, "limited": 0}
    with pytest.raises(NotFound):
        await bench.service.views.top(5, "wbe")
