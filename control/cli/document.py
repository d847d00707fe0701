# SPDX-License-Identifier: Apache-2.0
"""Policy files: YAML or JSON text to a document, and from a field of it back to its line."""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

import click

from valkyrie.control.errors import InvalidInput

MAX_DOCUMENT = 64 * 1024 * 1024
MAX_VALUES = 4_000_000  # a YAML file of some lines can name itself into more than memory holds
MAX_NUMBERED = 1024 * 1024  # longer texts take the slow reader too long to find a line
SLOW_YAML = 1024 * 1024  # characters: some seconds
TEXT_FIELDS = frozenset({"name", "match", "key", "burst"})


def load(text: str, name: str) -> dict[str, Any]:
    """The document that a file holds; raises InvalidInput naming file, line and column."""
    if len(text) > MAX_DOCUMENT:
        raise InvalidInput(f"{name} is longer than {MAX_DOCUMENT} characters")
    try:
        document = load_json(text, name) if text.lstrip().startswith("{") else load_yaml(text, name)
        document = texts(document, iter(range(MAX_VALUES)))
    except RecursionError:
        raise InvalidInput("nested too deeply", "a policy is nested five levels deep", where=name) from None
    except StopIteration:
        raise InvalidInput(f"holds more than {MAX_VALUES} values", "use fewer aliases", where=name) from None
    if not isinstance(document, dict):
        raise InvalidInput(
            f"{name} holds no mapping",
            "it begins with one of: limits, exempt, ban; `valkyrie-ctl limits export` shows the form",
        )
    return document


def read(file: TextIO) -> str:
    """The text of a file. Raises InvalidInput when it is none."""
    try:
        return file.read()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"not UTF-8 text: {error.reason} at byte {error.start}", where=file.name
        ) from error


def texts(node: Any, room: Iterator[int]) -> Any:
    """The same with numbers turned into text where the API wants text: people write burst: 2000.

    Raises StopIteration when `room` is used up, one for each value.
    """
    next(room)
    if isinstance(node, dict):
        return {
            name: str(value) if name in TEXT_FIELDS and type(value) is int else texts(value, room)
            for name, value in node.items()
        }
    return [texts(value, room) for value in node] if isinstance(node, list) else node


def load_json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        try:
            return load_yaml(text, name)
        except InvalidInput:
            line = getattr(error, "lineno", 1)
            raise InvalidInput(f"not JSON: {error}", where=f"{name} line {line}") from error


def load_yaml(text: str, name: str) -> Any:
    from valkyrie.control.cli.yaml_plain import OtherFormError, plain

    with contextlib.suppress(OtherFormError):
        return plain(text)
    if len(text) > SLOW_YAML:
        told = f"reading {name}: this long, YAML in another form than that of `limits export` takes a while"
        click.echo(told, err=True)
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name} line {mark.line + 1}, column {mark.column + 1}" if mark else name
        raise InvalidInput(error.problem or "not YAML", "is the indentation right?", where=where) from error
    except (YAMLError, ValueError) as error:
        raise InvalidInput(f"not YAML: {error}", where=name) from error


def steps_of(field: str) -> list[str | int]:
    """limits[2].rate -> ["limits", 2, "rate"]; so is limits.2.rate."""
    return [int(word) if word.isdigit() else word for word in re.findall(r"[^.\[\]\s]+", field)]


def line_of(text: str, field: str) -> int | None:
    """The line on which a field of the document stands, or that of the deepest part of it that exists.

    Reads the text once more, in the form that keeps line numbers: slow, so only once there is an error.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if len(text) > MAX_NUMBERED:
        return None
    try:
        node: Any = YAML(typ="rt").load(text)
    except (YAMLError, ValueError, RecursionError):
        return None
    line: int | None = None
    for step in steps_of(field):
        try:
            at = node.lc.data[step]
            node = node[step]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
        line = int(at[0]) + 1
    return line


def in_file(error: InvalidInput, text: str, name: str) -> InvalidInput:
    """The daemon's error about a field of the document as one about a line of the file."""
    field = re.sub(r"^(field|document)[\s.]+", "", error.where)
    line = line_of(text, field) if field else None
    where = name if line is None else f"{name} line {line}"
    return InvalidInput(error.what, error.hint, where=f"{where}, {field}" if field else where)
