# SPDX-License-Identifier: Apache-2.0
"""The quick reader of YAML reads what the command line writes, and nothing otherwise than the general one."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from valkyrie.control.cli.document import load
from valkyrie.control.cli.yaml_plain import OtherFormError, plain
from valkyrie.control.cli.yaml_text import as_yaml

WORDS = st.sampled_from(
    ["web", "1000/s", "10.0.0.0/8", "", "proto tcp dport 80,443", "2001:db8::/32", "yes", "null", "10", "a b"]
)
SCALARS = st.one_of(
    WORDS,
    st.text(max_size=12),
    st.integers(-(10**12), 10**12),
    st.booleans(),
    st.none(),
    st.floats(0, 2e9).map(lambda number: round(number, 3)),
)
NAMES = st.sampled_from(["limits", "name", "match", "rate", "overrides", "until", "y", "note"])
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
).filter(lambda made: isinstance(made, dict) and bool(made))
EDITS = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.sampled_from(
            [" ", "  ", "\n", "- ", ":", ": ", "#", " #", '"', "x", "1", "|", "&a ", "*a", "\t", "? "]
        ),
        st.integers(0, 3),
    ),
    max_size=4,
)


def general(text: str) -> Any:
    return YAML(typ="safe").load(text)


def quick(text: str) -> Any:
    """What the quick reader says; OtherFormError itself where it does not understand."""
    try:
        return plain(text)
    except OtherFormError:
        return OtherFormError


@settings(max_examples=300)
@given(DOCUMENTS)
def test_what_is_written_is_read_the_same(document: dict[str, Any]) -> None:
    text = as_yaml(document)
    assert load(text, "x") is not None
    assert quick(text) in (OtherFormError, general(text))


@settings(max_examples=600)
@given(DOCUMENTS, EDITS)
def test_no_text_means_to_it_what_it_does_not_mean_to_the_general_reader(
    document: dict[str, Any], edits: list[tuple[int, str, int]]
) -> None:
    text = as_yaml(document)
    for place, inserted, removed in edits:
        at = place % (len(text) + 1)
        text = text[:at] + inserted + text[at + removed :]
    found = quick(text)
    if found is OtherFormError:
        return
    try:
        wanted = general(text)
    except (YAMLError, ValueError) as error:
        raise AssertionError(f"the general reader refuses {text!r}") from error
    assert repr(found) == repr(wanted), text


def test_a_policy_of_very_many_overrides_is_read_by_it() -> None:
    entries = [{"prefix": f"10.{n >> 8}.{n & 255}.0/24", "rate": "5/s", "burst": "10"} for n in range(5000)]
    limit = {
        "name": "web",
        "match": "proto tcp dport 80",
        "key": "src",
        "rate": "1000/s",
        "overrides": entries,
    }
    policy = {"limits": [limit], "exempt": [{"prefix": "2001:db8::/32", "until": 1900000000.5}], "ban": []}
    text = "# ours\n" + as_yaml(policy)
    assert plain(text) == policy
    began = time.process_time()
    plain(text)
    middle = time.process_time()
    general(text)
    assert (middle - began) * 5 < time.process_time() - middle


@pytest.mark.parametrize(
    "text", ["", "a", "- 1\n  - 2", "a:", "a: 1\na: 2", "a: 'b'", "a: |\n  b", "a: &x 1", "a: 0x1"]
)
def test_what_is_of_another_form_is_left_to_the_general_reader(text: str) -> None:
    with pytest.raises(OtherFormError):
        plain(text)
