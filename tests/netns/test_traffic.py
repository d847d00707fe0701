# SPDX-License-Identifier: Apache-2.0
"""`vm/traffic.py` over a veth: what it says was answered and lost is what was."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.ctl import ROOT
from support.netns import End, set_link, veth_pair
from support.nobody import AS_NOBODY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and raw sockets need root")

TOOL = (sys.executable, str(ROOT / "vm" / "traffic.py"))
IP_FREEBIND = 15  # linux/in.h; Python has no name for it
TO4, TO6 = "10.9.0.1", "fd09::1"
HALF_MINUTE = 30.0
FILTER = """
table netdev t {{
  counter gone {{ }}
  chain in {{ type filter hook ingress device nic0 priority 0; {rule} counter name gone drop; }}
}}
"""


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    inside, outside = ("10.9.0.1/24", "fd09::1/64"), ("10.9.0.2/24", "fd09::2/64")
    with veth_pair(inside=inside, outside=outside) as pair:
        yield pair


def wait_for_addresses(end: End) -> None:
    """Until no IPv6 address of the NIC is still tried out."""
    deadline = time.monotonic() + HALF_MINUTE
    show = end.namespace.command("ip", "-6", "addr", "show", "dev", end.nic, "tentative")
    while subprocess.run(show, capture_output=True, check=True).stdout:
        assert time.monotonic() < deadline
        select.select([], [], [], 0.05)


def send(ends: tuple[End, End], profile: str, *words: str, to: str = TO4, status: int = 0) -> Any:
    """The report of a run from the world to the policed side."""
    if to == TO6:
        for end in ends:
            wait_for_addresses(end)
    argv = (*TOOL, profile, "--to", to, "--nic", "world0", "--seed", "7", "--json", "-", *words)
    done = subprocess.run(
        ends[1].namespace.command(*argv), capture_output=True, text=True, timeout=HALF_MINUTE, check=False
    )
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


@contextmanager
def serving(ends: tuple[End, End], report: Path) -> Iterator[None]:
    """`serve` on the policed side; its report is there at the end."""
    argv = ends[0].namespace.command(*TOOL, "serve", "--seconds", "120", "--json", str(report))
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert "listening" in process.stderr.readline()
            yield
            process.terminate()
            assert process.wait(HALF_MINUTE) == 0
        finally:
            process.kill()


def filtered(ends: tuple[End, End], rule: str) -> None:
    """Have the policed side drop what a rule of nftables matches, and count it."""
    command = ends[0].namespace.command("nft", "-f", "-")
    subprocess.run(command, input=FILTER.format(rule=rule), text=True, check=True)


def dropped(ends: tuple[End, End]) -> int:
    command = ends[0].namespace.command("nft", "-j", "list", "counters")
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return int(next(one["counter"]["packets"] for one in told["nftables"] if "counter" in one))


@pytest.mark.parametrize("to", [TO4, TO6])
def test_with_nothing_in_the_way_all_is_answered_and_both_ends_agree(
    ends: tuple[End, End], to: str, tmp_path: Path
) -> None:
    with serving(ends, tmp_path / "there.json"):
        here = send(ends, "legit", "--count", "400", "--rate", "2000", to=to)
    there = json.loads((tmp_path / "there.json").read_text())
    expected = {"sent": 400, "frames": 400, "asked": 400, "answered": 400}
    expected |= {"refused": 0, "lost": 0, "duplicated": 0, "reordered": 0}
    assert {name: here["total"][name] for name in expected} == expected
    assert here["kinds"]["udp"]["round_trip_ms"]["least"] > 0
    assert there["kinds"] == {"udp": {"arrived": 200, "duplicated": 0}}
    assert there["answered"] == 200
    assert here["frames_not_heard"] == 0


def test_every_fifth_dropped_is_every_fifth_lost_by_number(ends: tuple[End, End], tmp_path: Path) -> None:
    with serving(ends, tmp_path / "there.json"):
        filtered(ends, "udp dport 7007 numgen inc mod 5 == 4")
        here = send(ends, "legit", "--count", "200", "--rate", "2000", "--wait", "0.5")
    udp = here["kinds"]["udp"]
    assert (udp["sent"], udp["answered"], udp["lost"]) == (100, 80, 20)
    # Every other packet of the run is UDP, so each fifth of them is each tenth.
    assert udp["lost_numbers"] == [str(number) for number in range(8, 200, 10)]
    assert here["kinds"]["echo4"]["lost"] == 0
    assert dropped(ends) == 20
    assert json.loads((tmp_path / "there.json").read_text())["kinds"]["udp"]["arrived"] == 80


def test_users_beside_a_flood_lose_what_is_dropped_and_the_flood_is_counted(
    ends: tuple[End, End], tmp_path: Path
) -> None:
    with serving(ends, tmp_path / "there.json"):
        filtered(ends, "udp sport { 53, 123 }")
        words = ("--flood", "udp-amplification", "--count", "700", "--rate", "2000")
        here = send(ends, "mixed", *words)
    there = json.loads((tmp_path / "there.json").read_text())["kinds"]
    gone = here["kinds"]["dns"]["sent"] + here["kinds"]["ntp"]["sent"]
    assert (dropped(ends), here["total"]["lost"]) == (gone, 0)
    assert here["kinds"]["udp"]["answered"] == 35
    assert {"dns", "ntp"}.isdisjoint(there)
    assert there["memcached"]["arrived"] == here["kinds"]["memcached"]["sent"]


@pytest.mark.parametrize("to", [TO4, TO6])
def test_syns_are_answered_where_somebody_listens_and_refused_where_not(
    ends: tuple[End, End], to: str
) -> None:
    family = socket.AF_INET if to == TO4 else socket.AF_INET6

    def listen() -> socket.socket:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)  # IPv6 addresses are still tried out
        listener.bind((to, 8080))
        listener.listen(4096)
        return listener

    with closing(ends[0].namespace.call(listen)):
        listened = send(ends, "syn-flood", "--count", "100", "--tcp-port", "8080", to=to)["total"]
    closed = send(ends, "syn-flood", "--count", "100", "--tcp-port", "8081", "--seed", "8", to=to)["total"]
    assert (listened["answered"], listened["refused"], listened["lost"]) == (100, 0, 0)
    assert (closed["answered"], closed["refused"], closed["lost"]) == (0, 100, 0)


@pytest.mark.parametrize(
    ("profile", "to"), [("fragments", TO4), ("fragments", TO6), ("ipv6-extensions", TO6)]
)
def test_what_a_stock_kernel_answers_is_answered(
    ends: tuple[End, End], profile: str, to: str, tmp_path: Path
) -> None:
    with serving(ends, tmp_path / "there.json"):
        told = send(ends, profile, "--count", "120", "--rate", "1000", to=to)["total"]
    asked = 40 if profile == "fragments" else 120
    assert (told["asked"], told["answered"], told["lost"]) == (asked, asked, 0)
    assert json.loads((tmp_path / "there.json").read_text())["answered"] == asked


@pytest.mark.parametrize("profile", ["spoofed", "udp-amplification"])
def test_floods_arrive_and_are_not_answered(ends: tuple[End, End], profile: str, tmp_path: Path) -> None:
    with serving(ends, tmp_path / "there.json"):
        here = send(ends, profile, "--count", "140", "--rate", "2000")
    there = json.loads((tmp_path / "there.json").read_text())
    assert (there["arrived"], there["answered"], there["other"]) == (140, 0, 0)
    assert {kind: one["arrived"] for kind, one in there["kinds"].items()} == {
        kind: one["sent"] for kind, one in here["kinds"].items()
    }
    assert all(one["lost"] is None for one in here["kinds"].values())


@pytest.mark.parametrize(("profile", "tags"), [("vlan", "8100"), ("qinq", "88a8")])
def test_tagged_packets_arrive_with_their_tags(ends: tuple[End, End], profile: str, tags: str) -> None:
    filtered(ends, f"ether type 0x{tags}")
    send(ends, profile, "--count", "50", "--rate", "2000")
    assert dropped(ends) == 50


def test_requests_are_answered_and_those_without_a_server_are_lost(
    ends: tuple[End, End], tmp_path: Path
) -> None:
    (tmp_path / "page.html").write_text("hello")
    argv = (sys.executable, "-u", "-m", "http.server", "8080", "--directory", str(tmp_path))
    words = ("--count", "30", "--rate", "60", "--http-port")
    with ExitStack() as stack:
        web = stack.enter_context(
            subprocess.Popen(
                ends[0].namespace.command(*argv), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        )
        stack.callback(web.kill)
        assert web.stdout is not None
        assert "Serving" in web.stdout.readline()
        told = send(ends, "legit", *words, "8080", "--wait", "5")["kinds"]["http"]
        assert (told["answered"], told["lost"]) == (10, 0)
    told = send(ends, "legit", *words, "8081")["kinds"]["http"]
    assert (told["answered"], told["lost"]) == (0, 10)


def test_time_bounds_a_run_and_it_is_said(ends: tuple[End, End]) -> None:
    told = send(ends, "ping", "--rate", "100", "--seconds", "0.5", status=1)
    assert told["ended"] == "time"
    assert 30 <= told["total"]["sent"] <= 60
    assert told["total"]["sent"] == told["total"]["answered"]


def test_a_run_that_is_ended_tells_what_was_sent_and_hears_the_last_answers(ends: tuple[End, End]) -> None:
    argv = (*TOOL, "ping", "--to", TO4, "--nic", "world0", "--rate", "50", "--json", "-")
    with subprocess.Popen(
        ends[1].namespace.command(*argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + HALF_MINUTE
        look = ends[1].namespace.command("ip", "-j", "-s", "link", "show", "world0")
        before = sent = transmitted(look)
        while sent < before + 10 and time.monotonic() < deadline:
            select.select([], [], [], 0.05)
            sent = transmitted(look)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=HALF_MINUTE)
    assert process.returncode == 1
    told = json.loads(said)
    assert told["ended"] == "stopped"
    assert told["total"]["sent"] == told["total"]["answered"] > 0


def transmitted(look: list[str]) -> int:
    """Packets that the world's NIC has sent."""
    told = json.loads(subprocess.run(look, capture_output=True, text=True, check=True).stdout)
    return int(told[0]["stats64"]["tx"]["packets"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ping", "--to", "10.9.0.77", "--nic", "world0"), "10.9.0.77 does not answer on world0"),
        (("ping", "--to", "10.99.0.1", "--nic", "world0"), "10.99.0.1 does not answer on world0"),
        (("ping", "--to", "10.9.0.255", "--nic", "world0"), "broadcast"),
        (("ping", "--to", TO4, "--nic", "world0", "--json", "/nowhere/x"), "cannot be written"),
    ],
)
def test_what_cannot_be_sent_is_said_in_one_line(
    ends: tuple[End, End], words: tuple[str, ...], said: str
) -> None:
    refused(ends[1].namespace.command(*TOOL, *words, "--count", "1"), said)


def test_a_nic_that_is_down_is_said(ends: tuple[End, End]) -> None:
    set_link(ends[1].namespace, "world0", "down")
    refused(ends[1].namespace.command(*TOOL, "ping", "--to", TO4, "--nic", "world0"), "world0 is down")


def test_without_root_it_says_so(ends: tuple[End, End]) -> None:
    argv = (*AS_NOBODY, *TOOL, "ping", "--to", TO4, "--nic", "world0")
    refused(ends[1].namespace.command(*argv), "needs root")


def refused(argv: list[str], said: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=HALF_MINUTE, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
