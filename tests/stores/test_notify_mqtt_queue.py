# SPDX-License-Identifier: Apache-2.0
"""The queue before a real broker: what is submitted while it is away arrives, in order, when it is back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiomqtt

from support.broker import broker
from support.notes import note, until
from valkyrie.adapters.notify.settings import NotifySettings
from valkyrie.adapters.secrets import StaticSecrets
from valkyrie.control.notify.dispatcher import Dispatcher, Surroundings
from valkyrie.control.notify.worker import Pace

PACE = Pace(attempts=2, round_s=5.0, first_s=0.05, most_s=0.1, jitter_s=0.0, hold_s=0.05, hold_most_s=0.1)


async def heard(port: int, count: int) -> list[str]:
    """States of the alerts, until so many came."""
    found: list[str] = []
    async with (
        asyncio.timeout(20),
        aiomqtt.Client("localhost", port, identifier="ear", clean_session=False) as ear,
    ):
        await ear.subscribe("valkyrie/edge-1/alerts", qos=1)
        if count:
            async for message in ear.messages:
                found.append(json.loads(message.payload)["state"])
                if len(found) == count:
                    break
    return found


async def test_a_restart_of_the_broker_in_the_middle_loses_nothing_and_keeps_the_order(
    tmp_path: Path,
) -> None:
    with broker() as server:
        await heard(server.port, 0)  # from now on the broker keeps messages for it
        adapter = {
            "kind": "mqtt", "host": "localhost", "port": server.port, "encryption": "none",
            "timeout_seconds": 1.0,
        }  # fmt: skip
        given = NotifySettings.model_validate({"adapters": {"bus": adapter}})
        made = Dispatcher(given, Surroundings(tmp_path, StaticSecrets({}), "edge-1", pace=PACE))
        task = asyncio.ensure_future(made.run())
        try:
            assert await made.submit(note())
            await until(lambda: made.status()["adapters"][0]["queued"] == 0, "delivered")
            server.stop()
            assert await made.submit(note(state="resolved"))
            assert await made.submit(note())
            await until(lambda: made.status()["adapters"][0]["state"] == "failing", "that it is away is seen")
            assert made.status()["adapters"][0]["queued"] == 2
            server.start()
            await until(lambda: made.status()["adapters"][0]["queued"] == 0, "delivered after all")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert list(dict.fromkeys(await heard(server.port, 3))) == ["firing", "resolved"]
