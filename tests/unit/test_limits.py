# SPDX-License-Identifier: Apache-2.0
"""Limits are canonical and checked as a whole; costs never let more through; documents and diffs say all."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkyrie.control.cost import MAX_TAU, UNITS_A_NS, cost_of, default_burst, lease_of
from valkyrie.control.diff import diff
from valkyrie.control.document import from_document, to_document
from valkyrie.control.enums import Measure
from valkyrie.control.errors import InvalidInput
from valkyrie.control.limits import Ban, Desired, Exempt, Limit, Override
from valkyrie.control.units import parse_rate

RATES = [
    "1/h",
    "10/s",
    "1000/s",
    "333333/s",
    "600M/s",
    "32bit/h",
    "1kbit/s",
    "50mbit/s",
    "7gbit/s",
    "400gbit/s",
]


@pytest.mark.parametrize("text", RATES)
@given(tokens=st.integers(1, 65_535))
def test_a_cost_is_never_below_the_exact_one_and_hardly_above(text: str, tokens: int) -> None:
    rate = parse_rate(text)
    cost = cost_of(rate, None)
    tokens = 1 if rate.measure is Measure.PACKETS else tokens
    exact = Fraction(tokens * rate.period_ns * UNITS_A_NS, rate.amount)
    assert exact <= cost.of(tokens) <= exact * Fraction(101, 100) + 1
    assert cost.of(tokens) * rate.amount >= tokens * rate.period_ns * UNITS_A_NS


@pytest.mark.parametrize("text", RATES)
def test_figures_keep_the_bounds_that_the_kernel_s_arithmetic_needs(text: str) -> None:
    rate = parse_rate(text)
    cost = cost_of(rate, None)
    most = 1 if rate.measure is Measure.PACKETS else (1 << 17) - 1
    assert most * cost.mult + (1 << cost.shift) - 1 < 1 << 64
    assert cost.shift <= 32
    assert cost.of(1) <= cost.tau < MAX_TAU


def test_a_packet_of_just_the_burst_s_size_passes_a_full_bucket() -> None:
    for text in ("3mbit/s", "7gbit/s", "400gbit/s"):
        cost = cost_of(parse_rate(text), 1514)
        assert cost.of(1514) <= cost.tau < cost.of(1515)


def test_packets_have_exact_figures() -> None:
    cost = cost_of(parse_rate("1000/s"), 2000)
    assert (cost.mult, cost.shift, cost.tau) == (64_000_000, 0, 128_000_000_000)


def test_the_default_burst_is_a_second_s_worth() -> None:
    bursts = {"1000/s": 1000, "10/h": 1, "90/m": 2, "50mbit/s": 6_250_000, "8kbit/s": 65_536}
    assert {text: default_burst(parse_rate(text)) for text in bursts} == bursts


def test_a_lease_is_whole_packets_and_a_small_share_of_the_burst() -> None:
    for burst, cpus in ((2000, 2), (10**6, 64), (255, 2), (300, 2)):
        cost = cost_of(parse_rate("1000/s"), burst)
        lease = lease_of(cost, Measure.PACKETS, cpus)
        assert lease % cost.mult == 0
        assert lease * cpus * 128 <= cost.tau
        assert (lease > 0) == (burst >= 128 * cpus)
    assert lease_of(cost_of(parse_rate("1mbit/s"), 100_000), Measure.IP_BYTES, 2) == 0
    assert lease_of(cost_of(parse_rate("1gbit/s"), None), Measure.IP_BYTES, 2) > 0


def test_a_limit_is_canonical() -> None:
    limit = Limit(name="web", match="dport 443,80 proto tcp", key="src/32", rate="60/m", burst="2000")
    assert (limit.match, limit.key, limit.rate) == ("proto tcp dport 80,443", "src", "1/s")
    assert (limit.measure, limit.burst, limit.action) == ("packets", "2000", "drop")
    assert Limit(name="a", rate="50mbit/s").measure == "ip"
    assert Limit(name="a", rate="50mbit/s", measure="frame").rate_value.measure is Measure.FRAME_BYTES
    assert Limit(**limit.model_dump()) == limit


@pytest.mark.parametrize(
    ("fields", "where", "hint"),
    [
        ({"name": "Web"}, "name", "a-z"),
        ({"name": "x" * 64}, "name", "63"),
        ({"match": "prot tcp"}, "match", "did you mean proto?"),
        ({"key": "sorce"}, "key", "src"),
        ({"rate": "5"}, "rate", "1000/s"),
        ({"rate": "5/s", "burst": "5KB"}, "burst", "2000"),
        ({"rate": "5mbit/s", "burst": "5"}, "burst", "64KB"),
        ({"rate": "5mbit/s", "burst": "1000B"}, "burst", "1514B"),
        ({"rate": "1/h", "burst": "30000"}, "burst", "smaller burst"),
        ({"rate": "1/s", "measure": "ip"}, "measure", "packets"),
        ({"action": "ban"}, "ban_for", "10m"),
        ({"ban_for": "10m"}, "ban_for", "action ban"),
        ({"action": "ban", "ban_for": "10 minutes"}, "ban_for", "10m"),
        ({"action": "ban", "ban_for": "834d"}, "ban_for", "at most 833d"),
        ({"rat": "5/s"}, "rat", "did you mean rate?"),
        ({"rate": 5}, "rate", "string"),
        ({"action": "reject"}, "action", "drop"),
    ],
)
def test_a_wrong_field_is_named_with_what_would_be_right(
    fields: dict[str, Any], where: str, hint: str
) -> None:
    entry = {"name": "ok", "rate": "1/s", **fields}
    with pytest.raises(InvalidInput) as caught:
        from_document({"limits": [{"name": "fine", "rate": "1/s"}, entry]})
    assert caught.value.where == f"limits[1].{where}"
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ([], "the document"),
        ({"limit": []}, "limit"),
        ({"limits": {}}, "limits"),
        ({"limits": ["web"]}, "limits[0]"),
        ({"limits": [{"name": "a"}]}, "limits[0].rate"),
        ({"limits": [{"name": "a", "rate": "1/s"}] * 2}, "a"),
        ({"limits": [{"name": "a", "rate": "1/s", "overrides": [{"prefix": "10.0.0.1/8", "rate": "1/s"}]}]},
         "limits[0].overrides[0].prefix"),
        ({"limits": [{"name": "a", "rate": "1/s", "overrides": [{"prefix": "::/0", "limit": "b"}]}]},
         "limits[0].overrides[0]"),
        ({"exempt": [{"prefix": "10.0.0.0/8", "until": "soon"}]}, "exempt[0].until"),
        ({"ban": [{"prefix": "10.0.0.0/8", "until": float("inf")}]}, "ban[0].until"),
        ({"ban": [{"prefix": "10.0.0.0/8", "note": "x" * 257}]}, "ban[0].note"),
    ],
)  # fmt: skip
def test_a_wrong_document_is_refused_whole_and_the_place_named(document: object, where: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_document(document)
    assert caught.value.where == where


POLICY = {
    "limits": [
        {"name": "dns", "match": "proto udp sport 53", "rate": "50mbit/s", "action": "shadow"},
        {
            "name": "web",
            "match": "proto tcp dport 80,443",
            "key": "src",
            "rate": "1000/s",
            "burst": "2000",
            "overrides": [{"prefix": "203.0.113.0/24", "rate": "5000/s"}, {"prefix": "::/0", "rate": "1/s"}],
        },
    ],
    "exempt": [{"prefix": "192.0.2.0/24", "note": "us"}],
    "ban": [{"prefix": "198.51.100.7/32", "until": 1_800_000_000.123}],
}


def test_export_and_apply_give_the_same_policy() -> None:
    desired = from_document(POLICY)
    assert len(desired.overrides) == 2
    assert from_document(to_document(desired)) == desired
    assert from_document({}) == Desired()
    assert not diff(desired, from_document(to_document(desired)))


def test_a_difference_names_what_comes_goes_and_changes() -> None:
    old = from_document(POLICY)
    new = Desired.of(
        [
            Limit(name="web", match="proto tcp dport 80,443", key="src", rate="900/s", burst="2000"),
            Limit(name="x", rate="1/s"),
        ],
        [Override(limit="web", prefix="203.0.113.0/24", rate="5000/s")],
        old.exempts,
        [Ban(prefix="198.51.100.7")],
    )  # fmt: skip
    found = diff(old, new)
    assert found.lines() == [
        "- limit dns",
        "~ limit web",
        "    rate: 1000/s -> 900/s",
        "+ limit x",
        "- override web ::/0",
        "~ ban 198.51.100.7/32",
        "    until: 1800000000.123 -> none",
    ]
    assert [len(part) for part in (found.added, found.removed, found.changed)] == [1, 2, 2]
    assert found.entries()[1] == {
        "change": "changed", "kind": "limit", "name": "web", "fields": {"rate": ["1000/s", "900/s"]},
    }  # fmt: skip
    assert not diff(new, new)


def test_a_policy_is_sorted_and_contradicts_itself_nowhere() -> None:
    limits = [Limit(name=name, key="src", rate="1/s") for name in ("b", "a")]
    desired = Desired.of(limits, protects=["192.0.2.1", "192.0.2.1/32"])
    assert [limit.name for limit in desired.limits] == ["a", "b"]
    assert desired.protects == ("192.0.2.1/32",)
    with pytest.raises(InvalidInput, match="limit a is there twice"):
        Desired.of([limits[1], limits[1]])
    with pytest.raises(InvalidInput, match=r"exempt 10\.0\.0\.0/8 is there twice"):
        Desired.of(exempts=[Exempt(prefix="10.0.0.0/8"), Exempt(prefix="10.0.0.0/8", note="again")])
    with pytest.raises(InvalidInput, match="'c', which does not exist"):
        Desired.of(limits, [Override(limit="c", prefix="10.0.0.0/8", rate="1/s")])
