# SPDX-License-Identifier: Apache-2.0
"""Adapters added at run time, in `notify.json` in the state's folder. They hold names of credentials only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from valkyrie.adapters.notify.settings import ADAPTER, KINDS, NAME, AdapterBase, Route
from valkyrie.control.credentials.files import read_private, write_private
from valkyrie.control.errors import InvalidInput, StateError

FILE = "notify.json"
VERSION = 1
MAX_BYTES = 1 << 20
SECRET = ("password", "token", "secret", "auth_token", "apikey", "key")


@dataclass(frozen=True)
class Added:
    settings: AdapterBase
    route: Route


def checked_adapter(fields: dict[str, Any]) -> AdapterBase:
    """The settings of one adapter. Raises InvalidInput, which never shows a value."""
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidInput("that is no kind of adapter", f"known: {', '.join(KINDS)}", "kind")
    try:
        return ADAPTER.validate_python(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"] if part != kind)
        known = ", ".join(field.alias or name for name, field in KINDS[kind].model_fields.items())
        if first["type"] == "extra_forbidden":
            hint = f"known to {kind}: {known}"
            if where in SECRET:
                hint = "secrets are not given here: run `valkyrie-ctl creds set NAME`, then credential=NAME"
            raise InvalidInput(f"unknown setting {where[:40]}", hint, where[:40]) from None
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"{where or kind}: {message}", f"settings of {kind}: {known}", where) from None


def checked_route(name: str, severity: str, tags: dict[str, str]) -> Route:
    """Raises InvalidInput."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            "that is no name of an adapter",
            "up to 32 lower-case letters, digits, dots, hyphens, underscores: as ops-slack",
            "name",
        )
    try:
        return Route.model_validate({"severity": severity, "tags": tags, "to": [name]})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(
            f"{where}: {first['msg']}", "as severity=error, tags {limit: web}", where
        ) from None


def to_bytes(added: dict[str, Added]) -> bytes:
    entries = {
        name: {
            "settings": one.settings.model_dump(mode="json", by_alias=True, exclude_unset=True),
            "severity": one.route.severity,
            "tags": dict(one.route.tags),
        }
        for name, one in sorted(added.items())
    }
    return json.dumps({"version": VERSION, "adapters": entries}, indent=1).encode() + b"\n"


def load(folder: Path) -> dict[str, Added]:
    """Raises StateError."""
    path = folder / FILE
    raw = read_private(path, MAX_BYTES)
    if raw is None:
        return {}
    try:
        document = json.loads(raw)
        if document["version"] != VERSION:
            raise StateError(f"{path} was written by another version", "move it away and add them again")
        return {
            name: Added(checked_adapter(one["settings"]), checked_route(name, one["severity"], one["tags"]))
            for name, one in document["adapters"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, InvalidInput) as error:
        raise StateError(
            f"{path} is damaged: {error}",
            "put a backup of it back, or move it away and add the adapters again",
        ) from error


def save(folder: Path, added: dict[str, Added]) -> None:
    """Raises StateError; the former file then stays."""
    write_private(folder / FILE, to_bytes(added))
