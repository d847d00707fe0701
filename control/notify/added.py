# SPDX-License-Identifier: Apache-2.0
"""Adapters added at run time, in `notify.json` in the state's folder. They hold names of credentials only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from valkyrie.adapters.notify.settings import NAME, Route
from valkyrie.control.credentials.files import read_private, write_private
from valkyrie.control.errors import InvalidInput, StateError

if TYPE_CHECKING:
    from valkyrie.adapters.notify.kinds import AdapterBase

FILE = "notify.json"
VERSION = 1
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Added:
    settings: AdapterBase
    route: Route


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
    from valkyrie.adapters.notify.kinds import checked_adapter  # noqa: PLC0415 - only who has one needs it

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
