# SPDX-License-Identifier: Apache-2.0
"""Policies as documents, for export and apply: plain dicts and lists that JSON and YAML can hold.

    {"limits": [{"name", "match", "key", "rate", .., "overrides": [{"prefix", "rate", "burst"}]}],
     "exempt": [{"prefix", "until", "note"}], "ban": [..]}

`until` is in seconds since 1970. What is at its default is left out on export.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from valkyrie.control.errors import InvalidInput
from valkyrie.control.limits import Ban, Desired, Exempt, Limit, Override
from valkyrie.control.words import suggest

M = TypeVar("M", bound=BaseModel)
SECTIONS = ("limits", "exempt", "ban")
OVERRIDE_FIELDS = ("prefix", "rate", "burst")


def to_document(desired: Desired) -> dict[str, Any]:
    """The whole policy but protected prefixes, which are settings. from_document gives the same back."""
    overrides: dict[str, list[dict[str, Any]]] = {}
    for entry in desired.overrides:
        fields = {name: getattr(entry, name) for name in OVERRIDE_FIELDS}
        overrides.setdefault(entry.limit, []).append({k: v for k, v in fields.items() if v is not None})
    limits = []
    for limit in desired.limits:
        fields = limit.model_dump(exclude_none=True)
        limits.append(fields | ({"overrides": overrides[limit.name]} if limit.name in overrides else {}))
    return {
        "limits": limits,
        "exempt": [entry.model_dump(exclude_defaults=True) for entry in desired.exempts],
        "ban": [entry.model_dump(exclude_defaults=True) for entry in desired.bans],
    }


def from_document(document: object) -> Desired:
    """The policy that a document says; sections that it leaves out are empty.

    Raises InvalidInput whose `where` is the field that is wrong, as limits[2].rate.
    """
    sections = _mapping(document, "the document")
    for name in sections:
        if name not in SECTIONS:
            what = f"unknown section {str(name)[:64]!r}"
            raise InvalidInput(what, suggest(str(name)[:64], SECTIONS, "sections are"), str(name)[:64])
    limits: list[Limit] = []
    overrides: list[Override] = []
    for where, fields in _entries(sections, "limits"):
        limit, its_overrides = _limit(where, fields)
        limits.append(limit)
        overrides += its_overrides
    return Desired.of(
        limits,
        overrides,
        [checked(Exempt, fields, where) for where, fields in _entries(sections, "exempt")],
        [checked(Ban, fields, where) for where, fields in _entries(sections, "ban")],
    )


def checked(model: type[M], fields: Mapping[str, Any], where: str = "") -> M:
    """The model made of `fields`; raises InvalidInput for what is wrong, of the field `where`.name."""
    try:
        return model.model_validate(dict(fields))
    except InvalidInput as error:
        raise error.at(_join(where, error.where)) from None
    except ValidationError as error:
        raise _translated(model, error, where) from None


def _translated(model: type[BaseModel], error: ValidationError, where: str) -> InvalidInput:
    """The first of pydantic's complaints in our words."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(step) for step in first["loc"])[:64]
    at = _join(where, field)
    if first["type"] == "extra_forbidden":
        return InvalidInput(f"unknown field {field!r}", suggest(field, model.model_fields, "fields are"), at)
    if first["type"] == "missing":
        return InvalidInput(f"{field} is missing", f"give {field}", at)
    shown = str(first["input"])[:64]
    return InvalidInput(f"{field} {shown!r} is wrong", first["msg"].lower(), at)


def _limit(where: str, fields: Mapping[str, Any]) -> tuple[Limit, list[Override]]:
    limit = checked(Limit, {name: value for name, value in fields.items() if name != "overrides"}, where)
    entries = _entries(fields, "overrides", where)
    return limit, [_override(at, limit.name, entry) for at, entry in entries]


def _override(where: str, limit: str, fields: Mapping[str, Any]) -> Override:
    if "limit" in fields:
        raise InvalidInput("unknown field 'limit'", "an override belongs to the limit it stands under", where)
    return checked(Override, {**fields, "limit": limit}, where)


def _entries(
    fields: Mapping[str, Any], name: str, where: str = ""
) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Entries of a list, each with what it is called."""
    at = _join(where, name)
    listed = fields.get(name)
    if listed is None:
        return
    if not isinstance(listed, list):
        raise InvalidInput(f"{at} is not a list", "begin each entry with a dash", at)
    for index, entry in enumerate(listed):
        yield f"{at}[{index}]", _mapping(entry, f"{at}[{index}]")


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{where} is no set of fields", "write field: value", where)
    return value


def _join(where: str, field: str) -> str:
    return f"{where}.{field}" if where and field else where or field
