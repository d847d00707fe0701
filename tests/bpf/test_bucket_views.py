# SPDX-License-Identifier: Apache-2.0
"""Buckets by the names that people see, and explanations, asked of the loaded program."""

import time

import numpy as np
import pytest

from support.bpf import Kernel
from support.policy import limit, publish
from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, buckets, explain, packet
from valkyrie.control.dataplane.keyname import BAN_KEY, record_of
from valkyrie.control.enums import Reason
from valkyrie.control.errors import DataplaneError, InvalidInput, NotFound
from valkyrie.control.key import parse_key

NOW = 10**15
SECOND = 10**9

V4 = "src 198.51.100.7 dst 203.0.113.9 proto tcp sport 5000 dport 443"
V6 = "src 2001:db8:1:2::7 dst 2001:db8:9:8::9 proto udp sport 53 dport 99"
NAMES = [
    ("global", V4, "global"),
    ("src", V4, "198.51.100.7"),
    ("src/24", V4, "198.51.100.0/24"),
    ("dst", V4, "203.0.113.9"),
    ("src+dport", V4, "198.51.100.7 dport 443"),
    ("src+sport", V4, "198.51.100.7 sport 5000"),
    ("dst+sport", V4, "203.0.113.9 sport 5000"),
    ("sport+dport", V4, "sport 5000 dport 443"),
    ("dport", V4, "dport 443"),
    ("src+dst", V4, "198.51.100.7>203.0.113.9"),
    ("src/16+dst/24", V4, "198.51.0.0/16>203.0.113.0/24"),
    ("flow", V4, "198.51.100.7>203.0.113.9 proto tcp sport 5000 dport 443"),
    ("src", V6, "2001:db8:1:2::/64"),
    ("src6/48", V6, "2001:db8:1::/48"),
    ("dst", V6, "2001:db8:9:8::9"),
    ("src6/64+dst6/64", V6, "2001:db8:1:2::/64>2001:db8:9:8::/64"),
]


def send(kernel: Kernel, words: str, times: int = 1, now: int = NOW) -> None:
    frame = packet.build(packet.parse(words))
    for _ in range(times):
        kernel.run(frame, now)


@pytest.mark.parametrize(("key", "words", "name"), NAMES)
def test_a_bucket_is_listed_under_its_name_and_found_by_it(
    kernel: Kernel, key: str, words: str, name: str
) -> None:
    spec = parse_key(key)
    uid = publish(kernel, [limit(key=key, rate="10/s", burst="50")]).uid
    send(kernel, words, 3)
    listed = buckets.find(kernel.dp, {uid: spec}, NOW)
    assert [(one.key, one.uid) for one in listed] == [(name, uid)]
    assert buckets.find(kernel.dp, {uid: spec}, NOW, record=record_of(name, spec)) == listed


@pytest.mark.parametrize("key", ["flow", "src6/128+dst6/128", "src+sport"])
def test_an_ipv6_pair_that_does_not_fit_is_named_by_its_hash_and_found_by_it(
    kernel: Kernel, key: str
) -> None:
    spec = parse_key(key)
    uid = publish(kernel, [limit(key=key, rate="10/s", burst="50")]).uid
    send(kernel, V6)
    (one,) = buckets.find(kernel.dp, {uid: spec}, NOW)
    assert f">#{one.fingerprint:016x}" in one.key
    assert buckets.find(kernel.dp, {uid: spec}, NOW, record=record_of(one.key, spec)) == [one]


def test_an_address_is_found_under_the_prefix_that_holds_it(kernel: Kernel) -> None:
    spec = parse_key("src/24")
    uid = publish(kernel, [limit(key="src/24", rate="10/s", burst="50")]).uid
    send(kernel, V4)
    for text in ("198.51.100.200", "::ffff:198.51.100.1", "2002:c633:6401::5"):
        assert len(buckets.find(kernel.dp, {uid: spec}, NOW, record=record_of(text, spec))) == 1


def test_the_emptiest_come_first_and_full_ones_are_left_out(kernel: Kernel) -> None:
    uid = publish(kernel, [limit(key="src", rate="10/s", burst="50")]).uid
    spec = {uid: parse_key("src")}
    for host, times in ((1, 5), (2, 20), (3, 1)):
        send(kernel, f"src 10.0.0.{host}", times)
    assert [one.key for one in buckets.find(kernel.dp, spec, NOW)] == ["10.0.0.2", "10.0.0.1", "10.0.0.3"]
    assert [one.key for one in buckets.find(kernel.dp, spec, NOW, count=1)] == ["10.0.0.2"]
    later = NOW + SECOND
    assert [one.key for one in buckets.find(kernel.dp, spec, later)] == ["10.0.0.2"]
    assert len(buckets.find(kernel.dp, spec, later, live=False)) == 3


def test_resetting_one_key_refills_it_alone(kernel: Kernel) -> None:
    spec = parse_key("src")
    uid = publish(kernel, [limit(key="src", rate="10/s", burst="50")]).uid
    send(kernel, "src 10.0.0.1", 9)
    send(kernel, "src 10.0.0.2", 9)
    assert buckets.reset(kernel.dp, [uid], NOW, record_of("10.0.0.1", spec)) == 1
    assert [one.key for one in buckets.find(kernel.dp, {uid: spec}, NOW)] == ["10.0.0.2"]


def test_a_cost_given_back_after_a_reset_leaves_a_full_bucket(kernel: Kernel) -> None:
    """The packet was charged before the reset, and a later limit refused it after."""
    published = publish(kernel, [limit(key="src", rate="10/s", burst="50")])
    uid, cost = published.uid, int(published.compiled.limits[0]["plan"]["mult"])
    send(kernel, "src 10.0.0.1")
    buckets.reset(kernel.dp, [uid], NOW)
    kernel.dp.buckets["tat"][kernel.dp.buckets["fingerprint"] != 0] -= np.uint64(cost)
    assert buckets.find(kernel.dp, {uid: parse_key("src")}, NOW) == []
    send(kernel, "src 10.0.0.1", 50)
    counters = kernel.limit_counters(int(published.compiled.limits[0]["slot"]))
    assert (counters["passed"], counters["dropped"]) == (51, 0)


def test_a_debt_deeper_than_the_new_plan_is_cut_and_others_are_not(kernel: Kernel) -> None:
    uid = publish(kernel, [limit(key="src", rate="1/h", burst="50")]).uid
    send(kernel, "src 10.0.0.1", 50)
    tau = int(publish(kernel, [limit(key="src", rate="10/s", burst="50")]).compiled.limits[0]["plan"]["tau"])
    send(kernel, "src 10.0.0.2", 9)
    assert buckets.cap(kernel.dp, uid, NOW, tau) == 1
    levels = {one.key: one.level for one in buckets.find(kernel.dp, {uid: parse_key("src")}, NOW)}
    assert levels == {"10.0.0.1": tau, "10.0.0.2": 9 * tau // 50}
    later = NOW + SECOND // 10
    frame = packet.build(packet.parse("src 10.0.0.1"))
    assert kernel.run(frame, NOW).reason is Reason.LIMIT
    assert kernel.run(frame, later).reason is Reason.CONFORMS


def test_purging_a_limit_leaves_the_others_buckets_alone(kernel: Kernel) -> None:
    numbers = publish(
        kernel,
        [limit("one", key="src", rate="10/s", burst="50"), limit("two", key="dst", rate="10/s", burst="50")],
    ).numbers
    send(kernel, V4, 9)
    specs = {numbers["one"].uid: parse_key("src"), numbers["two"].uid: parse_key("dst")}
    assert {one.uid for one in buckets.find(kernel.dp, specs, NOW)} == set(specs)
    assert buckets.purge_others(kernel.dp, [one.uid for one in numbers.values()], NOW) == 0
    assert {one.uid for one in buckets.find(kernel.dp, specs, NOW)} == set(specs)
    assert buckets.purge_others(kernel.dp, [numbers["two"].uid], NOW) == 1
    assert {one.uid for one in buckets.find(kernel.dp, specs, NOW)} == {numbers["two"].uid}
    assert buckets.reset(kernel.dp, [numbers["two"].uid], NOW) == 1
    assert buckets.find(kernel.dp, specs, NOW) == []


def test_explaining_takes_no_tokens_and_tells_match_and_level(kernel: Kernel) -> None:
    publish(
        kernel,
        [
            limit("a", match="proto tcp dport 443", key="src", rate="1/h", burst="2"),
            limit("b", match="proto udp", key="src", rate="1/h", burst="2"),
        ],
    )
    asked = packet.parse(V4 + " syn")
    now = time.monotonic_ns()
    for left in (2, 1, 0):
        before = kernel.dp.buckets.copy()
        counted = kernel.dp.limit_stats.copy()
        answer = explain.run(kernel.dp, asked)
        assert answer.limits["matched"].tolist() == [1, 0]
        assert answer.limits["conforms"][0] == (left > 0)
        assert np.array_equal(before, kernel.dp.buckets)
        assert np.array_equal(counted, kernel.dp.limit_stats)
        send(kernel, V4, now=now)


def test_an_explanation_without_an_answer_is_an_error_and_not_a_verdict(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a packet in between has taken the program's working memory."""
    publish(kernel)
    run, asked = bpf.test_run, []

    def interrupted(prog_fd: int, data: bytes, *, ctx: bytes, ifindex: int) -> tuple[int, bytes, int]:
        asked.append(data)
        wrong = ctx if len(asked) > lost else bytes(8) + ctx[8:]
        return run(prog_fd, data, ctx=wrong, ifindex=ifindex)

    monkeypatch.setattr(bpf, "test_run", interrupted)
    lost = 3
    assert explain.run(kernel.dp, packet.parse(V4)).reason is Reason.NO_LIMIT
    assert len(asked) == 4
    lost = 10**6
    with pytest.raises(DataplaneError, match="no answer"):
        explain.run(kernel.dp, packet.parse(V4))


def test_explaining_names_a_reason_that_no_limit_gives(kernel: Kernel) -> None:
    publish(kernel)
    assert explain.run(kernel.dp, packet.parse(V4)).reason is Reason.NO_LIMIT
    with pytest.raises(NotFound):
        explain.run(kernel.dp, packet.parse("iface none-such"))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("srk 10.0.0.1", "srk"),
        ("src 10.0.0.0/8", "10.0.0.0/8"),
        ("src", "src"),
        ("dport 70000", "70000"),
        ("proto tpc", "tpc"),
        ("vlan 1 vlan 2", "vlan"),
        ("tcp-flags SYM", "SYM"),
        ("proto udp syn", "tcp-flags"),
        ("proto icmp dport 3", "proto"),
        ("length 9000", "9000"),
        ("fragment last", "last"),
        ("proto tcp length 30", "30"),
    ],
)
def test_wrong_words_are_named(text: str, wrong: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        packet.build(packet.parse(text))
    assert caught.value.where == wrong
    assert caught.value.hint


@pytest.mark.parametrize(
    "words",
    [
        f"{ends} {rest}"
        for ends in ("ip 4", "ip 6", "src 10.0.0.1", "dst 2001:db8::5")
        for rest in (
            "",
            "proto tcp",
            "syn",
            "proto sctp dport 5",
            "proto gre",
            "proto esp",
            "proto ah",
            "icmp-type echo-request",
            "proto 99",
            "fragment first",
            "fragment later",
            "vlan 10 dscp ef",
            "length 3000",
        )
    ],
)
def test_every_packet_in_words_is_well_formed_to_the_program(kernel: Kernel, words: str) -> None:
    publish(kernel)
    answer = kernel.run(packet.build(packet.parse(words)), NOW)
    assert answer.reason in (Reason.NO_LIMIT, Reason.CONTROL), answer


@pytest.mark.parametrize(("words", "prefix"), [(V4, "198.51.100.7"), (V6, "2001:db8:1:2::/64")])
def test_a_ban_made_by_a_limit_is_found_and_lifted(kernel: Kernel, words: str, prefix: str) -> None:
    publish(kernel, [limit(rate="1/s", burst="1", key="src", action="ban", ban_for="10s")])
    send(kernel, words, 2)
    frame = packet.build(packet.parse(words))
    assert kernel.run(frame, NOW + SECOND).reason == Reason.KERNEL_BAN
    found = buckets.find(kernel.dp, {abi.UID_BAN: BAN_KEY}, NOW)
    assert [(one.key, one.level >> abi.TIME_SHIFT) for one in found] == [(prefix, 10 * SECOND)]
    assert buckets.reset(kernel.dp, [abi.UID_BAN], NOW, record_of(prefix, BAN_KEY)) == 1
    assert kernel.run(frame, NOW + SECOND).reason == Reason.CONFORMS
