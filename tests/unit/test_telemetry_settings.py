# SPDX-License-Identifier: Apache-2.0
"""Settings of telemetry: changed while it runs, kept, refused; without them no library is loaded."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from support.exporting import SECRET, enable, running
from support.otlp import holds, http_collector
from support.workbench import ADMIN, Bench
from valkyrie.control.errors import Conflict, InvalidInput
from valkyrie.control.telemetry.channel import parse_headers


def test_the_daemon_starts_without_the_libraries_of_telemetry() -> None:
    ask = (
        "import sys, valkyrie.control.api.app, valkyrie.control.daemon, valkyrie.control.telemetry.runtime\n"
        "print(sorted({'opentelemetry', 'requests', 'grpc'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, timeout=60, check=False
    )
    assert (told.stdout, told.stderr) == ("[]\n", "")


async def test_what_was_set_lasts_and_reset_goes_back(bench: Bench) -> None:
    with http_collector() as there:
        await enable(bench, there.url)
        service = await bench.again()
        assert service.telemetry.status()["endpoint"] == there.url
        assert service.telemetry.status()["set"] == ["enabled", "endpoint", "interval_seconds"]
        await service.telemetry.reset(ADMIN)
        assert service.telemetry.status()["state"] == "off"
        service = await bench.again()
        assert service.telemetry.status()["set"] == []


async def test_a_damaged_file_of_what_was_set_does_not_keep_the_daemon_from_starting(bench: Bench) -> None:
    for content in ("{", "[]", '{"endpoint": "no url"}', '{"bogus": 1}'):
        (bench.folder / "telemetry.json").write_text(content)
        service = await bench.again()
        assert service.telemetry.status()["state"] == "off"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"endpoint": "ftp://x"}, "endpoint"),
        ({"endpoint": "http://user:pw@host"}, "endpoint"),
        ({"endpoint": "http://host:99999"}, "endpoint"),
        ({"interval_seconds": 0.5}, "interval_seconds"),
        ({"prometheus_listen": "localhost"}, "prometheus_listen"),
        ({"enabled": True, "headers_credential": "missing"}, "headers_credential"),
        ({"endpoint": "http://192.0.2.1:4318", "headers_credential": "otel"}, "headers_credential"),
    ],
)
async def test_what_cannot_work_is_refused_and_nothing_is_kept(
    bench: Bench, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await bench.service.telemetry.change(ADMIN, fields)
    assert caught.value.where == field
    assert "pw" not in str(caught.value)
    assert bench.service.telemetry.status()["set"] == []


async def test_of_two_changes_at_once_none_undoes_the_other(bench: Bench) -> None:
    change = bench.service.telemetry.change
    await asyncio.gather(change(ADMIN, {"interval_seconds": 7}), change(ADMIN, {"timeout_seconds": 3}))
    settings = (await bench.again()).telemetry.settings.otlp
    assert (settings.interval_seconds, settings.timeout_seconds) == (7, 3)


async def test_a_credential_in_use_by_telemetry_is_not_deleted_by_mistake(bench: Bench) -> None:
    await bench.service.credentials.put(ADMIN, "otel", SECRET)
    await enable(bench, "http://localhost:1", headers_credential="otel")
    (row,) = bench.service.credentials.listing()["credentials"]
    assert row["used_by"] == ["telemetry.otlp.headers_credential"]
    with pytest.raises(Conflict):
        await bench.service.credentials.delete(ADMIN, "otel", force=False)


async def test_after_a_change_the_status_tells_nothing_of_what_was_before(bench: Bench) -> None:
    with http_collector() as there:
        there.status = 500
        async with running(bench):
            await enable(bench, there.url)
            await holds(lambda: bench.service.telemetry.status()["state"] == "failing")
            answer = await bench.service.telemetry.change(ADMIN, {"prometheus_listen": ""})
            assert answer["state"] == "failing", "nothing of the collector was changed"
            answer = await enable(bench, "http://127.0.0.1:1")
            assert (answer["state"], answer["problem"]) == ("waiting", "")


@pytest.mark.parametrize("text", ["novalue", "a b=c", "x=\u00e9", "x=a%0d%0aevil: 1", "=x"])
def test_headers_that_are_none_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_headers(f"ok=1,{text}")
    assert "header 2" in caught.value.what
    assert text not in str(caught.value)
