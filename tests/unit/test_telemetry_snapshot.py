# SPDX-License-Identifier: Apache-2.0
"""One look at the appliance: all that there is, as it was at that moment, at a bounded cost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from support.workbench import ADMIN, WEB, Bench
from valkyrie.control.telemetry.meters import LEAST_S, ApiMeter, PacedScan
from valkyrie.control.telemetry.process import process_figures, received
from valkyrie.control.telemetry.snapshot import take


async def attach(bench: Bench, nic: str) -> None:
    await bench.service.nics.attach(ADMIN, nic, mode="auto", confirm=None, replacing=False, protect=[])


async def test_a_snapshot_has_what_the_appliance_has(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    await bench.service.guards.put(ADMIN, "ban", "198.51.100.7", None, "")
    await bench.service.credentials.put(ADMIN, "token", b"wordy")
    bench.time.now += 60
    slot = bench.service.core.world.allotment.slots["web"].slot
    bench.engine.counters[slot]["dropped"] = 7
    seen = await take(bench.service)
    (web,) = seen.limits
    assert (web.name, web.action) == ("web", "drop")
    assert seen.counters[web.slot]["dropped"] == 7
    assert (seen.bans, seen.capacity, seen.serial) == (1, 8192, bench.service.core.serial)
    assert (seen.wall, seen.mono) == (bench.time.now, bench.time.now)
    (token,) = seen.credentials
    assert (token.name, token.version, token.age_s) == ("token", 1, 60)
    assert seen.sync.state == "off"
    assert (seen.chain, seen.stores_problem) == (None, "starting")


async def test_a_snapshot_does_not_change_when_packets_are_counted_later(bench: Bench) -> None:
    await bench.service.limits.put(ADMIN, "web", WEB)
    seen = await take(bench.service)
    bench.engine.counters["matched"] += 1
    assert not seen.counters["matched"].any()


async def test_nics_are_told_as_the_host_has_them(bench: Bench) -> None:
    await attach(bench, "eth1")
    await attach(bench, "eth2")
    bench.engine.down.add("eth1")
    del bench.engine.links["eth2"]
    down, gone = (await take(bench.service)).nics
    assert (down.name, down.present, down.running, down.attached, down.mode) == (
        "eth1", True, False, True, "native",
    )  # fmt: skip
    assert (gone.name, gone.present, gone.attached) == ("eth2", False, False)


async def test_credentials_that_cannot_be_read_are_told_and_stop_nothing(bench: Bench) -> None:
    (bench.folder / "credentials.json").write_text("{")
    (bench.folder / "credentials.json").chmod(0o600)
    seen = await take(bench.service)
    assert seen.credentials == ()
    assert "is damaged" in seen.credentials_problem


def test_a_dear_scan_is_not_repeated_before_it_has_been_paid_for() -> None:
    now, scans = 0.0, 0

    def scan() -> int:
        nonlocal now, scans
        now += 0.5
        scans += 1
        return scans

    paced = PacedScan(scan, lambda: now)
    assert [paced(), paced()] == [1, 1]
    now = 49.9
    assert paced() == 1
    now = 50.0
    assert paced() == 2


def test_a_cheap_scan_is_repeated_every_second() -> None:
    now = 0.0
    answers = iter(range(10))
    paced = PacedScan(lambda: next(answers), lambda: now)
    assert paced() == 0
    now = LEAST_S
    assert paced() == 1


def test_two_who_ask_at_once_scan_once() -> None:
    entered, leave = threading.Event(), threading.Event()
    scans = 0

    def scan() -> int:
        nonlocal scans
        scans += 1
        entered.set()
        assert leave.wait(5)
        return 3

    found: list[int] = []
    paced = PacedScan(scan, lambda: 0.0)
    askers = [threading.Thread(target=lambda: found.append(paced())) for _ in range(2)]
    for asker in askers:
        asker.start()
    assert entered.wait(5)
    leave.set()
    for asker in askers:
        asker.join(5)
    assert (found, scans) == ([3, 3], 1)


def test_calls_are_counted_by_route_and_status_and_bound() -> None:
    meter = ApiMeter()
    for seconds in (0.001, 0.0011, 99.0):
        meter.note("GET", "/v1/limits/{name}", 200, seconds)
    meter.note("GET", "/v1/limits/{name}", 404, 0.0)
    found, missed = meter.figures()
    assert (found.status, found.count) == (200, 3)
    assert found.total_s == pytest.approx(99.0021)
    assert (found.histogram[0], found.histogram[1], found.histogram[-1]) == (1, 1, 1)
    assert (missed.status, missed.count) == (404, 1)


def test_figures_of_this_process_are_those_of_the_kernel() -> None:
    figures = process_figures()
    assert figures.threads >= 1
    assert figures.fds >= 3
    assert 1 << 20 < figures.memory < 1 << 34
    assert figures.uptime_s > 0
    assert received()["lo"].packets >= 0


def test_a_nic_with_an_odd_name_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    rows = b"".join(name + b": 100 7 0 3 0 0 0 0 0 0 0 0 0 0 0 0\n" for name in (b"\xff\x1d\x85", b"eth0"))
    (tmp_path / "net" / "dev").write_bytes(b"Inter-|   Receive\n face |bytes\n" + rows)
    assert received(tmp_path)["eth0"].packets == 7


def test_a_process_with_brackets_in_its_name_is_read_all_the_same(tmp_path: Path) -> None:
    fields = ["S", *("0" for _ in range(49))]
    for at, value in ((11, "100"), (12, "200"), (17, "4"), (19, "1000"), (21, "2")):
        fields[at] = value
    proc = tmp_path / "self"
    (proc / "fd").mkdir(parents=True)
    (proc / "fd" / "0").touch()
    (proc / "fd" / "1").touch()
    (proc / "stat").write_text(f"7 (a) b (c)) {' '.join(fields)}\n")
    (tmp_path / "uptime").write_text("60.00 1.00\n")
    figures = process_figures(proc)
    assert (figures.threads, figures.fds) == (4, 1)
    assert figures.user_s * 2 == figures.system_s
