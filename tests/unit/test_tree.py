# SPDX-License-Identifier: Apache-2.0
"""Trees find what a brute-force search finds, for any prefixes and at every edge of them."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from valkyrie.control.abi import REF_LEAF, REF_LOW
from valkyrie.control.prefix import Prefix
from valkyrie.control.ruleset.bitmaps import bitmap_of, distinct, single_bits
from valkyrie.control.ruleset.intervals import join_all, nest, pack
from valkyrie.control.ruleset.tree import Tree, build, leaf_tree, lookup

BITS = {4: 32, 6: 128}


def prefix_of(version: int, value: int, length: int) -> Prefix:
    bits = BITS[version]
    return Prefix(version, (value >> (bits - length) << (bits - length)).to_bytes(bits // 8, "big"), length)


def first(prefix: Prefix) -> int:
    return int.from_bytes(prefix.packed, "big")


def last(prefix: Prefix) -> int:
    return first(prefix) | ((1 << (BITS[prefix.version] - prefix.length)) - 1)


def edges(prefixes: Iterable[Prefix], version: int) -> set[int]:
    top = (1 << BITS[version]) - 1
    found = {0, top}
    for prefix in prefixes:
        found |= {first(prefix) - 1, first(prefix), last(prefix), last(prefix) + 1}
    return {address for address in found if 0 <= address <= top}


def covering(prefixes: Iterable[Prefix], address: int) -> list[Prefix]:
    return [prefix for prefix in prefixes if first(prefix) <= address <= last(prefix)]


def find(tree: Tree, version: int, address: int) -> int:
    high, low = (address, 0) if version == 4 else divmod(address, 1 << 64)
    return lookup(tree.nodes, tree.root, high, low)


def values_strategy(version: int) -> st.SearchStrategy[int]:
    """Addresses that lie near one another often enough to nest, also within one /64."""
    bits = BITS[version]
    anywhere = st.integers(0, (1 << bits) - 1)
    clustered = st.builds(
        lambda high, low: (high << (bits // 2)) | low,
        st.sampled_from([0, 1, (1 << bits // 2) - 1, 0x2001]),
        st.one_of(st.integers(0, 15), st.integers((1 << bits // 2) - 16, (1 << bits // 2) - 1)),
    )
    return st.one_of(anywhere, clustered)


def prefix_lists(version: int) -> st.SearchStrategy[list[Prefix]]:
    one = st.builds(prefix_of, st.just(version), values_strategy(version), st.integers(0, BITS[version]))
    return st.lists(one, min_size=1, max_size=40)


either = st.sampled_from([4, 6]).flatmap(lambda version: st.tuples(st.just(version), prefix_lists(version)))


@settings(max_examples=150)
@given(either)
def test_the_longest_prefix_is_found_at_every_edge(case: tuple[int, list[Prefix]]) -> None:
    version, prefixes = case
    n = nest(pack(prefixes, version))
    longest_of = np.zeros(n.count + 1, np.int64)  # the last is "none", as -1 says
    for number, which in enumerate(n.which):
        longest_of[which] = prefixes[number].length + 1
    tree = build(n.high, n.low, longest_of[n.innermost])
    for address in edges(prefixes, version):
        expected = max((prefix.length + 1 for prefix in covering(prefixes, address)), default=0)
        assert find(tree, version, address) == expected


@settings(max_examples=150)
@given(either)
def test_everything_that_covers_an_address_is_joined(case: tuple[int, list[Prefix]]) -> None:
    version, prefixes = case
    n = nest(pack(prefixes, version))
    rows = np.zeros((n.count + 1, 4), np.uint64)
    np.bitwise_or.at(rows, n.which, single_bits(np.arange(len(prefixes))))
    n.inherit(rows, np.bitwise_or)
    classes, class_of = distinct(rows)
    tree = build(n.high, n.low, class_of[n.innermost])
    for address in edges(prefixes, version):
        expected = bitmap_of(i for i, p in enumerate(prefixes) if covering([p], address))
        assert (classes[find(tree, version, address)] == expected).all()


def test_a_large_set_is_searched_right_and_few_nodes_deep() -> None:
    chance = random.Random(5)
    prefixes = [prefix_of(4, chance.getrandbits(32), chance.randint(8, 32)) for _ in range(20_000)]
    n = nest(pack(prefixes, 4))
    lengths = np.zeros(n.count + 1, np.int64)
    lengths[n.which] = [prefix.length for prefix in prefixes]
    tree = build(n.high, n.low, lengths[n.innermost])
    by_length: dict[int, set[int]] = {length: set() for length in range(8, 33)}
    for prefix in prefixes:
        by_length[prefix.length].add(first(prefix) >> (32 - prefix.length))
    for address in [chance.getrandbits(32) for _ in range(2000)] + [first(p) for p in prefixes[:500]]:
        matching = [length for length, known in by_length.items() if address >> (32 - length) in known]
        assert find(tree, 4, address) == max(matching, default=0)
    assert len(tree.nodes) < 2 * len(prefixes) / 6


def test_many_networks_split_below_64_have_a_subtree_each() -> None:
    prefixes = [
        prefix_of(6, (0x20010DB8 << 96) + (i << 64) + (j << 60), 68) for i in range(50) for j in (1, 3)
    ]
    n = nest(pack(prefixes, 6))
    tree = build(n.high, n.low, n.innermost + 1)
    leads_low = (tree.nodes["child"] & (REF_LEAF | REF_LOW)) == REF_LOW
    assert len(np.unique(tree.nodes["child"][leads_low])) == 50
    for number, prefix in enumerate(sorted(prefixes)):
        assert find(tree, 6, first(prefix)) == number + 1
        assert find(tree, 6, last(prefix) + 1) == 0


def test_a_placed_tree_answers_alike_with_its_values_raised() -> None:
    prefixes = [prefix_of(4, i << 8, 24) for i in range(0, 100, 2)]
    n = nest(pack(prefixes, 4))
    tree = build(n.high, n.low, n.innermost + 1)
    moved = tree.placed(7, 1000)
    nodes = np.concatenate((np.zeros(7, tree.nodes.dtype), moved.nodes))
    for address in edges(prefixes, 4):
        assert lookup(nodes, moved.root, address, 0) == find(tree, 4, address) + 1000
    assert leaf_tree(3).placed(7, 1000).root == REF_LEAF | 1003


def test_a_prefix_of_length_zero_is_a_leaf() -> None:
    for version in (4, 6):
        n = nest(pack([prefix_of(version, 0, 0)], version))
        tree = build(n.high, n.low, n.innermost + 5)
        assert (tree.root, len(tree.nodes)) == (REF_LEAF | 5, 0)


def test_packing_keeps_the_versions_apart() -> None:
    text = {4: ["10.0.0.0/8", "192.0.2.1/32"], 6: ["2001:db8::/32", "::/0"]}
    networks = [ipaddress.ip_network(word) for words in text.values() for word in words]
    prefixes = [Prefix(n.version, n.network_address.packed, n.prefixlen) for n in networks]
    assert pack(prefixes, 4).high.tolist() == [0x0A000000, 0xC0000201]
    assert pack(prefixes, 6).high.tolist() == [0x20010DB8 << 32, 0]
    assert len(join_all(4, [pack(prefixes, 4), pack(prefixes, 4)])) == 4
    assert len(join_all(6, [])) == 0


def test_distinct_rows_survive_a_collision_of_their_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = single_bits(np.array([3, 200, 3, 70]))
    monkeypatch.setattr("valkyrie.control.ruleset.bitmaps._mixed", np.zeros_like)
    found, which = distinct(rows)
    assert len(found) == 3
    assert (found[which] == rows).all()
