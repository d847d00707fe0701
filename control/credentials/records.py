# SPDX-License-Identifier: Apache-2.0
"""Credentials as records of a JSON file. A record opens under its own name and version only.

So records cannot be swapped among names. Putting a whole older file back is not detected.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from valkyrie.adapters.secrets import Secret
from valkyrie.control.credentials.keyring import KEY_ID, NONCE_BYTES, TAG_BYTES, Box, Keyring, RandomBytes
from valkyrie.control.credentials.words import NAME
from valkyrie.control.errors import StateError

FORMAT = 1
PREVIOUS = 2  # earlier versions that are kept: what they encrypted stays readable
MAX_RECORDS = 256
MAX_FILE_BYTES = 8 << 20


@dataclass(frozen=True)
class Version:
    number: int
    created: float  # wall seconds
    box: Box


@dataclass(frozen=True)
class Record:
    """`versions`, newest first."""

    name: str
    versions: tuple[Version, ...]

    @property
    def newest(self) -> Version:
        return self.versions[0]


Records = Mapping[str, Record]


def _context(name: str, number: int) -> bytes:
    return f"valkyrie credential\0{name}\0{number}".encode()


def _open(ring: Keyring, name: str, version: Version) -> Secret:
    what = f"credential {name} (version {version.number})"
    return Secret(ring.open(version.box, _context(name, version.number), what), version.number)


def opened(ring: Keyring, record: Record) -> Secret:
    """The newest value with the earlier ones. Raises WrongKeyError or DamagedError."""
    newest, *previous = (_open(ring, record.name, version) for version in record.versions)
    return Secret(newest.reveal(), newest.version, tuple(previous))


def with_version(
    ring: Keyring, old: Record | None, name: str, value: bytes, created: float, random_bytes: RandomBytes
) -> Record:
    """The record with a new version on top."""
    number = old.newest.number + 1 if old is not None else 1
    made = Version(number, created, ring.seal(value, _context(name, number), random_bytes))
    return Record(name, (made, *(old.versions[:PREVIOUS] if old is not None else ())))


def resealed(ring: Keyring, record: Record, random_bytes: RandomBytes) -> Record:
    """The record with every version under the current key; the same object if that is so already."""
    if all(version.box.key == ring.current for version in record.versions):
        return record

    def again(version: Version) -> Version:
        value = _open(ring, record.name, version).reveal()
        return replace(version, box=ring.seal(value, _context(record.name, version.number), random_bytes))

    return replace(record, versions=tuple(again(version) for version in record.versions))


def to_bytes(records: Records) -> bytes:
    document = {
        "format": FORMAT,
        "records": {name: [_row(version) for version in records[name].versions] for name in sorted(records)},
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _row(version: Version) -> dict[str, Any]:
    data = base64.b64encode(version.box.data).decode()
    return {"version": version.number, "created": version.created, "key": version.box.key, "box": data}


def from_bytes(raw: bytes, origin: str) -> dict[str, Record]:
    """Raises StateError for what is not whole, or of a later Valkyrie."""
    try:
        document = json.loads(raw)
        known = document["format"]
        if known == FORMAT:
            return {name: _record(name, rows) for name, rows in document["records"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StateError(
            f"{origin} is damaged", "put a backup of it back, or move it away and set the credentials anew"
        ) from error
    raise StateError(f"{origin} has format {known!r:.20}, known: {FORMAT}", "install the later version again")


def _record(name: str, rows: Any) -> Record:
    versions = tuple(
        Version(int(row["version"]), float(row["created"]), Box(str(row["key"]), _data(row["box"])))
        for row in rows
    )
    numbers = [version.number for version in versions]
    if not NAME.fullmatch(name) or not 1 <= len(versions) <= 1 + PREVIOUS:
        raise ValueError("name or number of versions")
    if numbers != sorted(set(numbers), reverse=True) or not all(
        KEY_ID.fullmatch(version.box.key) for version in versions
    ):
        raise ValueError("order of versions, or ids of keys")
    return Record(name, versions)


def _data(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if len(data) <= NONCE_BYTES + TAG_BYTES:
        raise ValueError("box")
    return data
