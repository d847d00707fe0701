# SPDX-License-Identifier: Apache-2.0
"""The credentials on disk, `credentials.json` in the state's folder, and the rotation of the master key.

Files are read at every call: they are small, and one that is put back from a backup counts at once.
Not for use by two threads at once: CredentialStore holds a lock.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from valkyrie.adapters.secrets import Secret
from valkyrie.control.credentials import keyring, records
from valkyrie.control.credentials.files import read_private, write_private
from valkyrie.control.credentials.keyring import KEY_BYTES, MAX_KEYS, Keyring, RandomBytes
from valkyrie.control.credentials.master import Keys, MasterKeys
from valkyrie.control.credentials.records import Record
from valkyrie.control.errors import Conflict, NotFound, StateError

FILE = "credentials.json"


class Vault:
    """Every change is on the disk when the call returns; after a crash all of it is there, or nothing."""

    def __init__(self, folder: Path, given: Path | None, random_bytes: RandomBytes) -> None:
        self._path = folder / FILE
        self._master = MasterKeys(folder, given)
        self._random = random_bytes

    def records(self) -> dict[str, Record]:
        """Raises StateError."""
        raw = read_private(self._path, records.MAX_FILE_BYTES, judge=False)
        return {} if raw is None else records.from_bytes(raw, str(self._path))

    def get(self, name: str) -> Secret | None:
        """Raises StateError."""
        record = self.records().get(name)
        return None if record is None else records.opened(self._ring(), record)

    def put(self, name: str, value: bytes, now: float) -> Secret:
        """A new version, which the former becomes previous to. Raises StateError, Conflict when full."""
        held = self.records()
        ring = self._ring(make=not held)
        if name not in held and len(held) >= records.MAX_RECORDS:
            raise Conflict(f"{records.MAX_RECORDS} credentials are all there is room for", "delete one first")
        old = held.get(name)
        made = records.with_version(ring, old, name, value, now, self._random)
        if old is not None and not _readable(ring, old):
            # Setting it anew is the way out of a lost key: only the number goes on.
            made = Record(name, made.versions[:1])
        self._write({**held, name: made})
        return records.opened(ring, made)

    def delete(self, name: str) -> None:
        """Raises NotFound, StateError."""
        held = self.records()
        if held.pop(name, None) is None:
            raise NotFound(f"there is no credential {name}", "valkyrie-ctl creds list shows them")
        self._write(held)

    def encrypt(self, value: bytes) -> str:
        """Text for `password_encrypted`. Raises StateError."""
        return keyring.encrypt_text(self._ring(make=not self.records()), value, self._random)

    def open_encrypted(self, text: str) -> Secret:
        """Raises InvalidInput, StateError."""
        return Secret(keyring.decrypt_text(self._ring(), text))

    def rekey(self, keep: Collection[str]) -> str:
        """Encrypt all with a new master key, whose id is returned. Keys with an id in `keep` stay readable.

        Killed at any step it leaves all readable: the new key is on the disk with the old before anything is
        encrypted with it, and the old goes last. `settle` takes it up. Raises Conflict, StateError.
        """
        keys = self._master.read()
        if keys.given:
            raise Conflict(
                "the master key is systemd's, which valkyried cannot write",
                "put a new first line into the credential valkyrie-master-key, keep the old as second, and "
                "restart: all is encrypted anew at the start (docs/credentials.md)",
            )
        for record in self.records().values():
            records.opened(keys.ring, record)  # what cannot be read now would be lost for good
        if len(keys.own) >= MAX_KEYS:
            raise Conflict(
                f"{MAX_KEYS} master keys are kept for values of password_encrypted in the settings",
                "make those anew with `valkyrie-ctl creds encrypt`, reload, and repeat",
            )
        self._master.write((self._random(KEY_BYTES), *keys.own))
        self.settle(keep)
        return self._ring().current

    def settle(self, keep: Collection[str]) -> bool:
        """Encrypt with the current key what is under former ones, then forget those of the key file.

        True: something was. Without credentials and keys nothing. Raises StateError.
        """
        keys = self._master.read()
        held = self.records()
        if not keys.ring:
            return False
        fresh = {name: records.resealed(keys.ring, record, self._random) for name, record in held.items()}
        stale = any(fresh[name] is not record for name, record in held.items())
        if stale:
            self._write(fresh)
        left = _needed(keys, keep)
        if left != keys.own:
            self._master.write(left)
        return stale or left != keys.own

    def key_ids(self) -> tuple[str, ...]:
        """The ids of the master keys, the current first. Raises StateError."""
        return self._master.read().ring.ids

    def _ring(self, *, make: bool = False) -> Keyring:
        keys = self._master.read()
        if keys.ring:
            return keys.ring
        if not make:
            raise StateError(
                f"the master key is missing: there is neither {self._master.path} nor systemd's credential",
                "put it back from where you keep it; without it credentials.json cannot be read: move that "
                "away and set the credentials anew",
            )
        self._master.write((self._random(KEY_BYTES),))
        return self._master.read().ring

    def _write(self, held: dict[str, Record]) -> None:
        write_private(self._path, records.to_bytes(held))


def _readable(ring: Keyring, record: Record) -> bool:
    try:
        records.opened(ring, record)
    except StateError:
        return False
    return True


def _needed(keys: Keys, keep: Collection[str]) -> tuple[bytes, ...]:
    """The key file's keys that encrypt, or that somebody else's text still needs."""
    current = keys.ring.current
    return tuple(key for key in keys.own if keyring.key_id(key) in {current, *keep})
