# SPDX-License-Identifier: Apache-2.0
"""From Redis to Valkey by the command line, with the real daemon, its table and its sync."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from support.appliance import Appliance
from support.ctl import command, environment
from support.servers import Server, redis_server, valkey_server

WEB = {"match": "proto udp dport 7", "key": "src", "rate": "1/h", "burst": "5"}


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.05)


def ctl(appliance: Appliance, *args: str, status: int = 0) -> str:
    done = subprocess.run(
        command("store", *args),
        env=environment(appliance.folder / "v.sock"), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def settings(redis: Server, valkey: Server, mode: str) -> dict[str, Any]:
    stores = {"redis": {"url": redis.unix_url}, "valkey": {"url": valkey.unix_url}}
    chain = {"mode": "yggdrasil", "fallback_chain": ["yggdrasil", mode]}
    return {"store": {"name": "edge", **chain, **stores}, "sync": {"interval_seconds": 0.5}}


def test_the_appliance_moves_from_redis_to_valkey_and_back_is_told_what_to_do(appliance: Appliance) -> None:
    with redis_server() as redis, valkey_server() as valkey:
        appliance.configure(**settings(redis, valkey, "redis"))
        appliance.start()
        appliance.done("PUT", "/v1/limits/web", WEB)
        until(lambda: appliance.done("GET", "/v1/store")["in_use"] == "yggdrasil")
        ctl(appliance, "consume", "10.9.0.2", "--limit", "web", "-n", "3")
        until(lambda: any(b":b:web:" in key for key in redis.run("KEYS", "*")))
        assert "no store is being migrated" in ctl(appliance, "migrate", "validate", status=4)
        assert "migrate validate" in ctl(appliance, "migrate", "start", "redis", "valkey")
        assert "no difference" in ctl(appliance, "migrate", "validate")
        out = ctl(appliance, "migrate", "cutover")
        assert "cutover: valkey decides" in out
        assert "fallback_chain: [yggdrasil, valkey]" in out
        until(lambda: appliance.done("GET", "/v1/store")["sync"]["store"] == "valkey")
        appliance.kill()
        appliance.start()  # with the settings as they were
        until(lambda: appliance.done("GET", "/v1/store")["sync"]["state"] == "ok")
        assert appliance.done("GET", "/v1/store")["sync"]["store"] == "valkey"
        assert "change these lines" in ctl(appliance, "migrate", "status")
        ctl(appliance, "migrate", "cleanup", "--yes", status=4)
        appliance.configure(**settings(redis, valkey, "valkey"))
        assert appliance.process is not None
        appliance.process.send_signal(signal.SIGHUP)
        until(lambda: "change these lines" not in ctl(appliance, "migrate", "status"))
        until(lambda: "store migrate cleanup" in ctl(appliance, "migrate", "status"))
        assert "migrated to valkey" in ctl(appliance, "migrate", "cleanup", "--yes")
        assert redis.run("KEYS", "*") == []
        assert any(b":b:web:" in key for key in valkey.run("KEYS", "*"))
        until(lambda: appliance.done("GET", "/v1/store")["sync"]["state"] == "ok")
        assert appliance.done("GET", "/v1/store")["sync"]["store"] == "valkey"
        assert appliance.stop() == 0
