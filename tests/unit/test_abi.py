# SPDX-License-Identifier: Apache-2.0
"""control/abi.py says what bpf/abi.h says: a C program prints the header, and every figure is compared."""

from __future__ import annotations

import re
import subprocess
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from valkyrie.control import abi

HEADER = Path(__file__).resolve().parents[2] / "bpf" / "abi.h"
STRUCT = re.compile(r"^struct (\w+) \{(.*?)^\};", re.MULTILINE | re.DOTALL)
MEMBER = re.compile(r"^\s*(?:struct )?\w+ (\w+)(?:\[\w+\])?;", re.MULTILINE)
ENUM = re.compile(r"enum (\w+) \{(.*?)\};", re.DOTALL)
CONSTANT = re.compile(r"^#define ([A-Z0-9_]+) +\S", re.MULTILINE)
ENUMS: dict[str, tuple[type[IntEnum] | type[IntFlag], str]] = {
    "embedding": (abi.Embedding, "EMBEDDING_"),
    "fragment": (abi.Fragment, "FRAGMENT_"),
    "dimension": (abi.Dimension, "DIM_"),
    "action": (abi.Action, "ACTION_"),
    "measure": (abi.Measure, "MEASURE_"),
    "reason": (abi.Reason, "REASON_"),
}


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def probe() -> str:
    """A C program that prints `kind name [member] figure...` for all that the header defines."""
    text = without_comments(HEADER.read_text())
    lines = []
    for name, body in STRUCT.findall(text):
        lines.append(f'printf("struct {name} %zu\\n", sizeof(struct {name}));')
        lines += [
            f'printf("member {name} {member} %zu %zu\\n", offsetof(struct {name}, {member}),'
            f" sizeof(((struct {name} *)0)->{member}));"
            for member in MEMBER.findall(body)
        ]
    for name, body in ENUM.findall(text):
        words = re.findall(r"[A-Z_0-9]+", body)
        lines += [f'printf("enum {name} {word} %lld\\n", (long long){word});' for word in words]
    lines += [f'printf("constant {name} %lld\\n", (long long){name});' for name in CONSTANT.findall(text)]
    types = "".join(
        f"typedef uint{bits}_t u{bits}; typedef int{bits}_t s{bits};\n" for bits in (8, 16, 32, 64)
    )
    includes = "#include <stdint.h>\n#include <stddef.h>\n#include <stdio.h>\n"
    return f'{includes}{types}#include "{HEADER}"\nint main(void) {{ {" ".join(lines)} return 0; }}\n'


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    folder = tmp_path_factory.mktemp("abi")
    (folder / "probe.c").write_text(probe())
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", "probe", "probe.c"], cwd=folder, check=True)
    output = subprocess.run([folder / "probe"], check=True, capture_output=True, text=True).stdout
    return [line.split() for line in output.splitlines()]


def test_every_struct_has_the_same_members_offsets_and_size(said: list[list[str]]) -> None:
    ours: dict[str, dict[str, list[int]]] = {}
    theirs: dict[str, dict[str, list[int]]] = {}
    for kind, name, *rest in said:
        dtype: Any = getattr(abi, name.upper()) if kind in ("struct", "member") else None
        if kind == "struct":
            assert dtype.itemsize == int(rest[0]), name
            ours[name] = {
                member: [dtype.fields[member][1], dtype.fields[member][0].itemsize] for member in dtype.names
            }
            theirs[name] = {}
        elif kind == "member":
            theirs[name][rest[0]] = [int(rest[1]), int(rest[2])]
    assert len(theirs) == HEADER.read_text().count("\nstruct ")
    assert ours == theirs


def test_every_enumeration_has_the_same_words_and_values(said: list[list[str]]) -> None:
    for enum_name, (enum, prefix) in ENUMS.items():
        theirs = {
            word.removeprefix(prefix): int(value)
            for kind, name, word, value in (line for line in said if line[0] == "enum")
            if name == enum_name and word != "REASONS"
        }
        assert theirs == {member.name: member.value for member in enum}
    assert {line[1] for line in said if line[0] == "enum"} == set(ENUMS)


def test_every_constant_has_the_same_value(said: list[list[str]]) -> None:
    constants = {line[1]: int(line[2]) for line in said if line[0] == "constant"}
    assert len(constants) > 50
    for name, value in constants.items():
        assert constant(name) == value, name
    assert next(int(line[3]) for line in said if line[2] == "REASONS") == abi.REASONS


def constant(name: str) -> int:
    if name == "FIELD_BLOCK":
        return abi.FIELD_BLOCK_CLASSES
    if name.startswith("KEY_"):
        return abi.KeyField[name.removeprefix("KEY_")]
    if name.startswith("GUARD_"):
        return abi.Guard[name.removeprefix("GUARD_")]
    return int(getattr(abi, name))


def test_types_are_native_so_that_views_of_maps_need_no_copy() -> None:
    for name in ("NODE", "LIMIT", "RULESET", "BUCKET_SET", "LIMIT_STATS"):
        dtype = getattr(abi, name)
        assert dtype.isnative
        assert np.zeros(2, dtype).strides == (dtype.itemsize,)
