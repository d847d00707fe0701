# SPDX-License-Identifier: Apache-2.0
"""Where the master keys lie: systemd's credential `valkyrie-master-key`, else `master.key` beside the state.

Both hold base64 lines of 32 bytes, the current key first; further lines are former keys, which open and do
not encrypt. systemd's come before the file's.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from valkyrie.control.credentials.files import read_private, remove, write_private
from valkyrie.control.credentials.keyring import KEY_BYTES, MAX_KEYS, Keyring
from valkyrie.control.errors import StateError

CREDENTIAL = "valkyrie-master-key"
FILE = "master.key"
MAX_BYTES = 4096


@dataclass(frozen=True, repr=False)
class Keys:
    """All keys that were found, by where they lie."""

    given: tuple[bytes, ...] = ()  # systemd's, which this process cannot change
    own: tuple[bytes, ...] = ()  # in the key file

    @property
    def ring(self) -> Keyring:
        return Keyring((*self.given, *self.own))


class MasterKeys:
    """`given` is the folder that systemd names in $CREDENTIALS_DIRECTORY, if it does."""

    def __init__(self, folder: Path, given: Path | None) -> None:
        self.path = folder / FILE
        self.given = None if given is None else given / CREDENTIAL

    def read(self) -> Keys:
        """Raises StateError for a file that others can read, or that holds no keys."""
        # systemd's folder is memory that only this service sees; the modes in it are systemd's affair.
        given = None if self.given is None else read_private(self.given, MAX_BYTES, judge=False)
        own = read_private(self.path, MAX_BYTES)
        return Keys(
            () if given is None else _parse(given, str(self.given)),
            () if own is None else _parse(own, str(self.path)),
        )

    def write(self, keys: Sequence[bytes]) -> None:
        """Make these the key file's; without any it is removed. Raises StateError."""
        if keys:
            write_private(self.path, b"".join(base64.b64encode(key) + b"\n" for key in keys))
        else:
            remove(self.path)


def _parse(raw: bytes, origin: str) -> tuple[bytes, ...]:
    lines = raw.split()
    try:
        keys = tuple(base64.b64decode(line, validate=True) for line in lines)
    except (binascii.Error, ValueError):
        keys = ()
    if not 1 <= len(keys) <= MAX_KEYS or any(len(key) != KEY_BYTES for key in keys):
        raise StateError(
            f"{origin} does not hold master keys: 1 to {MAX_KEYS} lines of {KEY_BYTES} bytes in base64",
            "restore it from a backup; a new one is made by: openssl rand -base64 32",
        )
    return keys
