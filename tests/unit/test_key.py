# SPDX-License-Identifier: Apache-2.0
"""Keys round-trip, and wrong parts are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkyrie.control.errors import InvalidInput
from valkyrie.control.key import FLOW, KeySpec, format_key, parse_key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("global", KeySpec()),
        ("src", KeySpec(src4=32, src6=64)),
        ("src/32", KeySpec(src4=32, src6=64)),
        ("src/24", KeySpec(src4=24, src6=64)),
        ("src6/56", KeySpec(src4=32, src6=56)),
        ("src/24+src6/56", KeySpec(src4=24, src6=56)),
        ("dst", KeySpec(dst4=32, dst6=128)),
        ("src+dport", KeySpec(src4=32, src6=64, dport=True)),
        ("dst/16+sport", KeySpec(dst4=16, dst6=128, sport=True)),
        ("flow", FLOW),
    ],
)
def test_a_key_says_what_has_a_bucket(text: str, key: KeySpec) -> None:
    assert parse_key(text) == key
    assert parse_key(format_key(key)) == key


pairs = st.one_of(st.just((None, None)), st.tuples(st.integers(1, 32), st.integers(1, 128)))


@given(pairs, pairs, st.booleans(), st.booleans())
def test_every_key_survives_the_round_trip(
    src: tuple[int, int], dst: tuple[int, int], sport: bool, dport: bool
) -> None:
    key = KeySpec(*src, *dst, sport=sport, dport=dport)
    assert parse_key(format_key(key)) == key


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("source", "source", "src"),
        ("scr", "scr", "did you mean src?"),
        ("", "", "parts are"),
        ("src/33", "src/33", "1 to 32"),
        ("src/0", "src/0", "global"),
        ("src6", "src6", "src6/64"),
        ("src6/129", "src6/129", "1 to 128"),
        ("src+src", "src", "src/24+dport"),
        ("global+src", "global", "src/24"),
        ("src+flow", "flow", "src/24"),
        ("dport/8", "dport/8", "write dport"),
        ("src/²", "src/²", "1 to 32"),
    ],
)
def test_a_wrong_part_is_named_with_what_would_be_right(text: str, where: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_key(text)
    assert caught.value.where == where
    assert hint in caught.value.hint


def test_keys_that_many_hosts_share_are_known() -> None:
    texts = ("global", "src/24", "dport", "src", "flow", "src/24+dst")
    assert [parse_key(text).is_shared for text in texts] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
