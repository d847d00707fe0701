# SPDX-License-Identifier: Apache-2.0
"""What traffic reports: answers are told by number, and what is typed wrong is said in one line."""

from __future__ import annotations

import json
import sys
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

import traffic
from profiles.tag import ASK, FLOOD, REPLY, Tag, pack
from sending.answers import BY_TCP, Answer, answer
from sending.ledger import Ledger, spans, total
from sending.private import is_private
from sending.serve import MOST_KINDS, Arrivals

RUN = 0xFFFFFFF0
MS = 1_000_000
ASKED = Raw(pack(Tag(ASK, RUN, 5, "udp")))


def of(packet: Any) -> Answer | None:
    return answer(bytes(packet), RUN)


def test_answers_are_told_by_their_numbers() -> None:
    ether, reply = Ether(), Raw(pack(Tag(REPLY, RUN, 5, "udp")))
    assert of(ether / IP() / UDP() / reply) == Answer(5)
    assert of(ether / Dot1Q(vlan=3) / IPv6() / UDP() / reply) == Answer(5)
    assert of(ether / IP() / ICMP(type=0) / ASKED) == Answer(5)
    assert of(ether / IPv6() / ICMPv6EchoReply(data=bytes(ASKED))) == Answer(5)
    assert of(ether / IP() / ICMP(type=3, code=3) / IP() / UDP() / ASKED) == Answer(5, refused=True)
    assert of(ether / IPv6() / ICMPv6DestUnreach() / IPv6() / UDP() / ASKED) == Answer(5, refused=True)
    flood = Raw(pack(Tag(FLOOD, RUN, 5, "dns")))
    assert of(ether / IP() / ICMP(type=3, code=13) / IP() / UDP() / flood) == Answer(5, refused=True)


def test_a_tcp_answer_acknowledges_the_number_also_past_the_end_of_32_bits() -> None:
    ack = (RUN + 0x20 + 1) & 0xFFFFFFFF
    assert of(Ether() / IP() / TCP(flags="SA", ack=ack)) == Answer(0x20, kinds=BY_TCP)
    assert of(Ether() / IPv6() / TCP(flags="RA", ack=ack)) == Answer(0x20, refused=True, kinds=BY_TCP)


def test_what_answers_nothing_is_no_answer() -> None:
    ether = Ether()
    assert of(ether / IP() / ICMP(type=8) / ASKED) is None
    assert of(ether / IP() / UDP() / ASKED) is None
    assert of(ether / IP() / TCP(flags="A", ack=RUN + 1)) is None
    assert of(ether / IP() / UDP() / Raw(pack(Tag(REPLY, 1, 5, "udp")))) is None


@given(st.binary(max_size=120))
def test_any_frame_is_an_answer_or_none(frame: bytes) -> None:
    answer(frame, RUN)
    answer(bytes(12) + b"\x08\0" + frame, RUN)
    answer(bytes(12) + b"\x81\0\0\1\x86\xdd" + frame, RUN)


def book(asks: bool = True) -> Ledger:
    ledger = Ledger()
    for seq in range(10):
        ledger.sent(seq, "udp", seq * MS, (b"x" * 60,), asks=asks)
    return ledger


def test_lost_numbers_are_those_without_an_answer() -> None:
    ledger = book()
    for seq in (0, 1, 5, 9):
        ledger.answered(seq, (seq + 2) * MS)
    told = ledger.report()["udp"]
    assert (told["sent"], told["answered"], told["lost"]) == (10, 4, 6)
    assert told["lost_numbers"] == ["2-4", "6-8"]
    assert told["round_trip_ms"] == {"least": 2.0, "median": 2.0, "p99": 2.0, "most": 2.0}
    assert (ledger.waiting, told["bytes"]) == (6, 600)


def test_a_second_answer_is_a_duplicate_and_a_late_one_is_out_of_order() -> None:
    ledger = book()
    for seq in (0, 2, 1, 1, 3):
        ledger.answered(seq, 20 * MS)
    told = ledger.report()["udp"]
    assert (told["answered"], told["duplicated"], told["reordered"], told["lost"]) == (4, 1, 1, 6)


def test_a_refusal_is_no_loss_and_no_answer() -> None:
    ledger = book()
    ledger.answered(3, 20 * MS, refused=True)
    told = ledger.report()["udp"]
    assert (told["answered"], told["refused"], told["lost"]) == (0, 1, 9)


def test_an_answer_to_what_was_not_sent_counts_nowhere() -> None:
    ledger = book()
    ledger.answered(99, 20 * MS)
    ledger.answered(1, 20 * MS, kinds=BY_TCP)
    assert ledger.report()["udp"]["answered"] == 0


def test_what_asks_for_nothing_loses_nothing() -> None:
    told = book(asks=False).report()
    assert told["udp"]["lost"] is None
    assert total(told)["lost"] == 0
    assert total(told)["sent"] == 10


@given(st.sets(st.integers(0, 60)))
def test_spans_hold_the_numbers_and_no_others(numbers: set[int]) -> None:
    found: list[int] = []
    for span in spans(sorted(numbers)):
        first, _, last = span.partition("-")
        found += range(int(first), int(last or first) + 1)
    assert found == sorted(numbers)


def test_arrivals_are_bounded_whatever_is_sent() -> None:
    arrivals = Arrivals()
    for number in range(500):
        arrivals.count(Tag(ASK, number, 0xFFFFFFFF, f"kind{number}"))
        arrivals.count(Tag(ASK, number, 3, "kind1"))
    arrivals.count(None)
    assert len(arrivals.kinds) == MOST_KINDS
    assert len(arrivals._seen) == 32
    assert arrivals.other == 500 - MOST_KINDS + 1


def test_a_number_that_comes_twice_is_told() -> None:
    arrivals = Arrivals()
    for run, seq in ((1, 5), (1, 5), (2, 5), (1, 6)):
        arrivals.count(Tag(ASK, run, seq, "udp"))
    assert arrivals.kinds == {"udp": {"arrived": 4, "duplicated": 1}}


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("10.0.0.1", True),
        ("172.31.255.255", True),
        ("172.32.0.0", False),
        ("192.168.1.1", True),
        ("127.0.0.1", True),
        ("169.254.1.1", True),
        ("8.8.8.8", False),
        ("198.18.0.1", False),
        ("203.0.113.1", False),
        ("fd00::1", True),
        ("fe80::1", True),
        ("::1", True),
        ("2001:4860::1", False),
        ("::ffff:8.8.8.8", False),
        ("::ffff:10.1.1.1", True),
        ("2002:0808:0808::1", False),
    ],
)
def test_only_addresses_of_nobody_else_are_private(address: str, private: bool) -> None:
    assert is_private(ip_address(address)) is private


TO = ("--to", "10.0.0.1", "--nic", "lo")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("flod", *TO), "no profile 'flod'"),
        (("ping", "--to", "192.0.2.1", "--nic", "lo"), "--i-own-this-network"),
        (("ping", "--to", "10.0.0.1", "--nic", "nosuch0"), "no NIC 'nosuch0'"),
        (("ping", "--to", "nowhere", "--nic", "lo"), "'nowhere' is no IPv4 or IPv6 address"),
        (("ping", "--to", "fd00::1"), "--nic"),
        (("ping", *TO, "--count", "0"), "from 1 to 200000"),
        (("ping", *TO, "--count", "1e3"), "no whole number"),
        (("ping", *TO, "--rate", "nan"), "no number"),
        (("ping", *TO, "--seconds", "601"), "no number"),
        (("ping", *TO, "--mac", "1:2:3"), "no MAC address"),
        (("ping", *TO, "--from", "10.0.0.1/8"), "no prefix"),
        (("ping", *TO, "--from", "fd00::/8"), "not of one family"),
        (("ping", *TO, "--colour"), "unrecognized"),
        (("ipv6-extensions", *TO), "IPv6 alone"),
        (("mixed", *TO, "--flood", "mixed"), "take another profile"),
        (("mixed", *TO, "--flood", "x"), "no profile 'x'"),
        (("ping", "--to", "0.0.0.0", "--nic", "lo"), "not the address of one machine"),
        (("ping", "--to", "ff02::1", "--nic", "lo"), "not the address of one machine"),
        (("serve", "--address", "here"), "no address to listen on"),
        (("serve", "--port", "0"), "from 1 to 65535"),
    ],
)
def test_what_is_typed_wrong_is_said_in_one_line_with_status_2(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert traffic.main(list(words)) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert (shown.err.count("\n"), shown.out) == (1, "")


def test_without_scapy_the_package_to_install_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("profiles", "scapy")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scapy", None)
    assert traffic.main(["ping", "--to", "127.0.0.1", "--nic", "lo"]) == 2
    assert "apt install python3-scapy" in capsys.readouterr().err
    assert traffic.main(["list"]) == 0
    assert "syn-flood" in capsys.readouterr().out


def test_a_report_is_told_in_words_and_as_json(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = book().report()
    told = {"profile": "legit", "to": "10.0.0.1", "seconds": 1, "seed": 3, "ended": "count", "kinds": kinds}
    told["total"] = total(kinds)
    traffic.report(str(tmp_path / "r.json"), told, traffic.in_words)
    assert "legit to 10.0.0.1" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["total"]["lost"] == 10
