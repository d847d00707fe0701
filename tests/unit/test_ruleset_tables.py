# SPDX-License-Identifier: Apache-2.0
"""Guards, overrides, limits and the bounds of the tables; and what the compiler leaves as it was."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import Any

import pytest

from valkyrie.control import abi
from valkyrie.control.abi import Action, Guard, KeyField, Measure
from valkyrie.control.errors import InvalidInput
from valkyrie.control.limits import Ban, Desired, Exempt, Limit, Override
from valkyrie.control.prefix import parse_prefix
from valkyrie.control.ruleset.compile import (
    CompileCache,
    CompiledRuleset,
    RulesetSettings,
    SlotUid,
    compile_ruleset,
)
from valkyrie.control.ruleset.tree import lookup

ONES = (1 << 64) - 1
SECOND = 10**9


def compiled(desired: Desired, cache: CompileCache | None = None, **more: Any) -> CompiledRuleset:
    clocks = {"mono_now_ns": 100 * SECOND, "wall_now_ns": 1000 * SECOND, "serial": 7} | more
    slots = {limit.name: SlotUid(number, number + 1) for number, limit in enumerate(desired.limits)}
    settings = clocks.pop("settings", RulesetSettings())
    return compile_ruleset(
        desired, slots=slots, nic_slots={}, cpus=2, settings=settings, cache=cache, **clocks
    )


def find(ruleset: CompiledRuleset, root4: int, root6: int, address: str) -> int:
    packed = parse_prefix(address).packed
    value = int.from_bytes(packed, "big")
    if len(packed) == 4:
        return lookup(ruleset.nodes, root4, value, 0)
    return lookup(ruleset.nodes, root6, *divmod(value, 1 << 64))


def guard_of(ruleset: CompiledRuleset, address: str) -> tuple[Guard, int, int]:
    header = ruleset.header
    row = ruleset.guards[find(ruleset, int(header["guard4_root"]), int(header["guard6_root"]), address)]
    return Guard(int(row["flags"])), int(row["exempt_until"]), int(row["ban_until"])


def plan_of(ruleset: CompiledRuleset, name: str, address: str) -> int:
    """The cost of a token for this address under a limit of that name."""
    row = ruleset.limits[ruleset.order.index(name)]
    leaf = find(ruleset, int(row["override_root"]), int(row["override6_root"]), address)
    return int(ruleset.plans[leaf]["mult"] if leaf else row["plan"]["mult"])


def test_a_guard_joins_all_that_cover_an_address_with_the_latest_expiry() -> None:
    ruleset = compiled(
        Desired.of(
            exempts=[Exempt(prefix="10.0.0.0/8", until=1060), Exempt(prefix="10.1.0.0/16", until=1030)],
            bans=[
                Ban(prefix="10.1.1.0/24"),
                Ban(prefix="2001:db8::/32", until=900),
                Ban(prefix="10.1.0.0/16", until=2000),
            ],
            protects=["10.1.1.1", "2001:db8::1"],
        )
    )
    minute = 160 * SECOND
    assert guard_of(ruleset, "11.0.0.0") == (Guard(0), 0, 0)
    assert guard_of(ruleset, "10.0.0.0") == (Guard.EXEMPT, minute, 0)
    assert guard_of(ruleset, "10.1.2.3") == (Guard.EXEMPT | Guard.BAN, minute, 1100 * SECOND)
    assert guard_of(ruleset, "10.1.1.2") == (Guard.EXEMPT | Guard.BAN, minute, ONES)
    assert guard_of(ruleset, "10.1.1.1") == (Guard.PROTECT | Guard.EXEMPT | Guard.BAN, minute, ONES)
    assert guard_of(ruleset, "2001:db8::1") == (Guard.PROTECT | Guard.BAN, 0, 0)
    assert guard_of(ruleset, "2001:db9::") == (Guard(0), 0, 0)


def test_the_longest_override_holds_for_either_ip_version() -> None:
    limits = [
        Limit(name="web", key="src6/128", rate="1/s"),
        Limit(name="a", key="dst", rate="1/s", burst="9"),
    ]
    ruleset = compiled(
        Desired.of(
            limits,
            [
                Override(limit="web", prefix="10.0.0.0/8", rate="10/s"),
                Override(limit="web", prefix="10.1.0.0/16", rate="100/s"),
                Override(limit="web", prefix="10.1.1.1", rate="10/s"),
                Override(limit="web", prefix="2001:db8::/32", rate="1000/s"),
                Override(limit="web", prefix="2001:db8::1", rate="10/s"),
                Override(limit="a", prefix="0.0.0.0/0", rate="5/s"),
            ],
        )
    )
    second = 64 * SECOND
    addresses = ("9.9.9.9", "10.9.9.9", "10.1.9.9", "10.1.1.1", "2001:db8::2", "2001:db8::1", "::")
    assert [second // plan_of(ruleset, "web", address) for address in addresses] == [
        1,
        10,
        100,
        10,
        1000,
        10,
        1,
    ]
    assert [second // plan_of(ruleset, "a", address) for address in ("10.1.1.1", "2001:db8::1")] == [5, 1]
    assert len(ruleset.plans) == 1 + 3 + 1
    assert [int(row["override_dst"]) for row in ruleset.limits] == [1, 0]


def test_ipv4_without_an_override_of_its_own_is_marked_where_ipv6_around_embedded_addresses_has_one() -> None:
    limits = [Limit(name="web", key="src6/128", rate="1/s"), Limit(name="plain", key="src", rate="1/s")]
    entries = [
        Override(limit="web", prefix="10.0.0.0/8", rate="10/s"),
        Override(limit="web", prefix="2000::/3", rate="100/s"),
        Override(limit="plain", prefix="2001:db8::/32", rate="100/s"),
    ]
    ruleset = compiled(Desired.of(limits, entries))
    plain, web = ruleset.limits
    assert int(plain["override_root"]) == abi.REF_LEAF
    assert find(ruleset, int(web["override_root"]), 0, "10.1.1.1") == 2
    marked = find(ruleset, int(web["override_root"]), 0, "9.9.9.9")
    assert marked & abi.PLAN_EMBEDDED
    mapped, six_to_four = ruleset.plans[marked - abi.PLAN_EMBEDDED :][:2]
    assert not any(mapped.tolist())
    assert six_to_four == ruleset.plans[find(ruleset, 0, int(web["override6_root"]), "2001:db8::1")]


def test_classes_of_embedded_addresses_are_those_of_the_ipv6_prefixes_around_them() -> None:
    matches = ("src 10.0.0.0/8,2000::/3", "src ::/16", "dst ::/0", "src 2001:db8::/32", "")
    limits = [Limit(name=f"l{i}", match=match, rate="1/s") for i, match in enumerate(matches)]
    ruleset = compiled(Desired.of(limits))
    rows = ruleset.classes["word"][:, 0]
    assert [int(rows[at]) for at in ruleset.header["src_embedded_class"]] == [0b10110, 0b10101]
    assert [int(rows[at]) for at in ruleset.header["dst_embedded_class"]] == [0b11111, 0b11111]


@pytest.mark.parametrize(
    ("fields", "override", "says"),
    [
        ({"key": "global"}, {}, "no address"),
        ({"key": "src/24"}, {"prefix": "10.0.0.0/25"}, "narrower"),
        ({"key": "src"}, {"prefix": "2001:db8::1"}, "/64"),
        ({"key": "src"}, {"rate": "5mbit/s"}, "counts bytes"),
    ],
)
def test_an_override_that_does_not_fit_its_limit_is_refused(
    fields: dict[str, str], override: dict[str, str], says: str
) -> None:
    limit = Limit(name="web", rate="1/s", **fields)  # type: ignore[arg-type]
    entry = Override(**{"limit": "web", "prefix": "10.0.0.0/8", "rate": "5/s", **override})
    with pytest.raises(InvalidInput, match=says) as caught:
        compiled(Desired.of([limit], [entry]))
    assert caught.value.where == entry.prefix


def test_a_limit_row_says_what_the_limit_says() -> None:
    limits = [
        Limit(name="z-all", rate="10/s"),
        Limit(name="net", key="src/24+src6/56+dport", rate="1mbit/s", measure="frame", action="shadow"),
        Limit(name="flow", key="flow", rate="1/s", action="ban", ban_for="10m"),
    ]
    ruleset = compiled(Desired.of(limits))
    assert ruleset.order == ["z-all", "flow", "net"]
    everything, flow, net = ruleset.limits
    assert everything["mask4"].tolist() == everything["mask6"].tolist() == [0, 0, 0, 0]
    assert int(everything["key_fields"]) == 0
    assert net["mask4"].tolist() == [ONES, ONES ^ 0xFF, 0, 0]
    assert net["mask6"].tolist() == [ONES ^ 0xFF, 0, 0, 0]
    assert int(net["key_fields"]) == KeyField.SRC | KeyField.DPORT
    assert (int(net["measure"]), int(net["action"])) == (Measure.FRAME_BYTES, Action.SHADOW)
    assert flow["mask4"].tolist() == flow["mask6"].tolist() == [ONES] * 4
    assert int(flow["key_fields"]) == 31
    assert (int(flow["action"]), int(flow["ban_ns"])) == (Action.BAN, 600 * SECOND)
    assert [(int(row["slot"]), int(row["uid"])) for row in ruleset.limits] == [(2, 3), (0, 1), (1, 2)]
    assert [int(row["override_root"]) for row in ruleset.limits] == [abi.REF_LEAF] * 3
    assert int(ruleset.header["kernel_bans"]) == 1
    assert int(ruleset.header["serial"]) == 7


def test_buckets_that_many_hosts_share_are_leased() -> None:
    keys = {"global": True, "src/24": True, "src": False, "flow": False, "dport": True}
    limits = [Limit(name=key.replace("/", "-"), key=key, rate="1000/s", burst="2560") for key in keys]
    ruleset = compiled(Desired.of(limits))
    leased = {
        name: int(row["plan"]["batch"]) for name, row in zip(ruleset.order, ruleset.limits, strict=True)
    }
    assert leased == {key.replace("/", "-"): 10 * 64_000_000 * shared for key, shared in keys.items()}


def test_settings_are_passed_on() -> None:
    settings = RulesetSettings(malformed_drop=False, table_full_open=True, event_sample=9, event_rate=8)
    header = compiled(Desired(), settings=settings).header
    names = ("malformed_drop", "table_full_open", "event_sample", "event_rate", "kernel_bans")
    assert [int(header[name]) for name in names] == [0, 1, 9, 8, 0]


def test_a_changed_rate_leaves_every_other_array_the_same_object() -> None:
    limits = [
        Limit(name=f"l{n}", match=f"src 10.{n}.0.0/16 dport {n}", key="src", rate="1/s") for n in range(9)
    ]
    overrides = [Override(limit="l1", prefix="10.0.0.0/8", rate="2/s")]
    old = Desired.of(limits, overrides, [Exempt(prefix="10.0.0.0/8")])
    cache = CompileCache()
    before = compiled(old, cache)
    limits[4] = Limit(**{**limits[4].model_dump(), "rate": "5/s"})
    after = compiled(Desired.of(limits, overrides, old.exempts), cache, mono_now_ns=101 * SECOND)
    for name in ("plans", "nodes", "classes", "fields", "guards"):
        assert getattr(after, name) is getattr(before, name), name
    assert after.limits[4]["plan"]["mult"] * 5 == before.limits[4]["plan"]["mult"]


def test_expiries_follow_the_clocks_even_when_nothing_else_changed() -> None:
    desired = Desired.of(bans=[Ban(prefix="10.0.0.0/8", until=1060)])
    cache = CompileCache()
    assert guard_of(compiled(desired, cache), "10.0.0.0")[2] == 160 * SECOND
    stepped = compiled(desired, cache, wall_now_ns=1030 * SECOND)
    assert guard_of(stepped, "10.0.0.0")[2] == 130 * SECOND


def prefixes(count: int, first: int = 0x0A000000) -> str:
    return "src " + ",".join(f"{ip_address(first + 2 * number)}/32" for number in range(count))


def test_what_does_not_fit_is_refused_with_its_bound() -> None:
    many = [Limit(name=f"l{n:03}", rate="1/s") for n in range(257)]
    with pytest.raises(InvalidInput, match="257 limits"):
        compiled(Desired.of(many))
    full = [Limit(name="a", match=prefixes(100_000), rate="1/s")]
    with pytest.raises(InvalidInput, match="100001 prefixes"):
        compiled(Desired.of(full, bans=[Ban(prefix="10.0.0.0/8")]))
    with pytest.raises(InvalidInput, match="tree nodes"):
        compiled(Desired.of(full), settings=RulesetSettings(max_nodes=1000))
    limit = Limit(name="a", key="src", rate="1/s")
    entry = Override.model_construct(limit="a", prefix="10.0.0.0/8", rate="2/s", burst=None)
    with pytest.raises(InvalidInput, match="100001 overrides"):
        compiled(Desired(limits=(limit,), overrides=(entry,) * 100_001))
    with pytest.raises(InvalidInput, match="limit 'b', which does not exist"):
        compiled(Desired(limits=(limit,), overrides=(Override(limit="b", prefix="10.0.0.0/8", rate="2/s"),)))


def test_100_000_prefixes_and_overrides_compile_in_time() -> None:
    limits = [
        Limit(name=f"l{n:03}", match=prefixes(390, 0x0A000000 + n * 0x1000), key="src", rate="1/s")
        for n in range(256)
    ]
    rates = [f"{n}/s" for n in range(1, 100)]
    entries = tuple(
        Override.model_construct(
            limit="l000", prefix=f"{ip_address(0x0A000000 + 3 * n)}/32", rate=rates[n % 99], burst=None
        )
        for n in range(100_000)
    )
    desired = Desired(limits=tuple(limits), overrides=entries)
    cache = CompileCache()
    ruleset = compiled(desired, cache)
    assert 64 * SECOND // plan_of(ruleset, "l000", "10.0.0.3") == 2
    changed = Desired(
        (*limits[:-1], Limit(name="l255", match=limits[-1].match, key="src", rate="2/s")), entries
    )
    took = []
    for serial in range(5):
        start = time.process_time()
        compiled(changed if serial % 2 else desired, cache, serial=serial)
        took.append(time.process_time() - start)
    assert min(took) < 0.05  # 5 ms on an idle core
