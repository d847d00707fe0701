# SPDX-License-Identifier: Apache-2.0
"""The daemon's stores: shown, tried out, consumed, and an application beside it that uses them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.appliance import Appliance
from valkyrie.adapters import Limit, open_store
from valkyrie.control.errors import NotFound

WEB = {"match": "proto udp dport 7", "key": "src", "rate": "1/h", "burst": "5"}


def until(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.05)


def stores(appliance: Appliance, **settings: Any) -> dict[str, Any]:
    embedded = {"path": str(appliance.folder / "store.db")}
    return {"store": {"name": "edge", "embedded": embedded, **settings}}


def in_use(appliance: Appliance) -> str | None:
    found: str | None = appliance.done("GET", "/v1/store")["in_use"]
    return found


def test_the_embedded_store_serves_with_no_settings_but_its_path(appliance: Appliance) -> None:
    appliance.configure(**stores(appliance))
    appliance.start()
    until(lambda: in_use(appliance) == "embedded")
    checked = appliance.done("GET", "/v1/store/check")["stores"]
    assert [(one["store"], one["ok"]) for one in checked] == [("embedded", True)]
    body = {"key": "user-4711", "rate": "1/h", "burst": "2"}
    taken = [appliance.done("POST", "/v1/store/consume", body)["allowed"] for _ in range(3)]
    assert taken == [True, True, False]
    assert appliance.stop() == 0


def test_a_first_start_with_the_kernels_table_switches_to_no_other_store(appliance: Appliance) -> None:
    appliance.configure(**stores(appliance, mode="yggdrasil", fallback_chain=["embedded"]))
    appliance.start()
    until(lambda: in_use(appliance) is not None)
    assert in_use(appliance) == "yggdrasil"
    assert appliance.done("GET", "/v1/store")["switch_overs"] == 0


def test_packets_and_calls_take_from_one_bucket_of_the_kernels_table(appliance: Appliance) -> None:
    appliance.configure(**stores(appliance, mode="yggdrasil", fallback_chain=["embedded"]))
    appliance.start()
    appliance.done("PUT", "/v1/limits/web", WEB)
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    until(lambda: in_use(appliance) == "yggdrasil")
    receiver, sender = appliance.receiver(), appliance.sender()
    for _ in range(2):
        sender.sendto(b"x", ("10.9.0.1", 7))
        receiver.recv(16)
    body = {"key": "10.9.0.2", "limit": "web", "n": 3}
    answer = appliance.done("POST", "/v1/store/consume", body)
    assert (answer["allowed"], answer["remaining"], answer["store"]) == (True, 0, "yggdrasil")
    assert not appliance.done("POST", "/v1/store/consume", {**body, "n": 1})["allowed"]
    assert appliance.done("POST", "/v1/store/consume", {**body, "n": 6})["retry_after"] is None


def test_a_store_that_is_away_is_named_by_status_and_check_and_delays_no_start(appliance: Appliance) -> None:
    away = {"url": "redis://127.0.0.1:1", "timeout_ms": 200}
    appliance.configure(**stores(appliance, mode="redis", fallback_chain=["embedded"], redis=away))
    appliance.start()
    until(lambda: in_use(appliance) == "embedded")
    shown = appliance.done("GET", "/v1/store")
    assert [(one["name"], one["state"]) for one in shown["stores"]] == [
        ("redis", "away"),
        ("embedded", "in-use"),
    ]
    checked = appliance.done("GET", "/v1/store/check")["stores"]
    assert [one["ok"] for one in checked] == [False, True]
    assert checked[0]["steps"][-1]["hint"]


def test_settings_of_the_stores_take_effect_by_a_reload(appliance: Appliance) -> None:
    appliance.configure(**stores(appliance))
    appliance.start()
    until(lambda: in_use(appliance) == "embedded")
    appliance.configure(**stores(appliance, mode="yggdrasil", fallback_chain=["embedded"]))
    assert appliance.process is not None
    appliance.process.send_signal(signal.SIGHUP)
    until(lambda: in_use(appliance) == "yggdrasil")
    missing = {"credential": "nowhere", "username": "x"}
    appliance.configure(**stores(appliance, mode="redis", redis=missing))
    appliance.process.send_signal(signal.SIGHUP)
    until(lambda: "nowhere" in appliance.done("GET", "/v1/store")["problem"])
    assert in_use(appliance) == "yggdrasil"


async def test_an_application_consumes_limits_by_name_and_goes_on_without_the_daemon(
    appliance: Appliance,
) -> None:
    appliance.configure(**stores(appliance, mode="yggdrasil", fallback_chain=["embedded"]))
    appliance.start()
    appliance.done("PUT", "/v1/limits/web", WEB)
    overrides = {"overrides": [{"prefix": "10.9.1.0/24", "rate": "1/h", "burst": "7"}]}
    appliance.done("PUT", "/v1/limits/web/overrides", overrides)
    async with open_store(appliance.config) as store:
        assert (await store.try_consume("10.9.0.2", limit="web")).remaining == 4
        assert (await store.try_consume("10.9.1.2", limit="web")).remaining == 6
        assert store.backend_name == "yggdrasil"
        with pytest.raises(NotFound):
            await store.try_consume("10.9.0.2", limit="nowhere")
        own = Limit.of("login", "1/h", "2")
        assert [(await store.try_consume("u", limit=own)).allowed for _ in range(3)] == [True, True, False]
        appliance.kill()
        assert (await store.try_consume("10.9.0.2", limit="web")).remaining == 3


def test_an_answer_of_the_api_is_what_an_application_needs(appliance: Appliance) -> None:
    appliance.configure(**stores(appliance))
    appliance.start()
    appliance.done("PUT", "/v1/limits/web", WEB)
    answer = appliance.done("GET", "/v1/call-limits?name=web")
    (entry,) = answer["limits"]
    assert (entry["key"], entry["rate"], entry["burst"], entry["measure"]) == ("src", "1/h", "5", "packets")
    assert entry["uid"] > 0
    serial = answer["serial"]
    again = appliance.done("GET", f"/v1/call-limits?name=web&serial={serial}")
    assert again == {"serial": serial}
    assert appliance.ask("GET", "/v1/call-limits?name=nowhere")[0] == 404
    assert appliance.ask("GET", "/v1/call-limits?name=web&serial=x")[0] == 400
