# SPDX-License-Identifier: Apache-2.0
"""Master keys and what they encrypt: AES-256-GCM under the first, readable under any. No I/O.

Nonces are random, 96 bits: with up to 2^32 boxes of one key two nonces are the same with a probability
below 2^-32 (NIST SP 800-38D, 8.3). A key makes some hundred boxes in its life.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from valkyrie.control.errors import InvalidInput, StateError

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
TEXT_PREFIX = "valkyrie1"
MAX_KEYS = 8
KEY_ID = re.compile(r"[0-9a-f]{16}")

RandomBytes = Callable[[int], bytes]


def key_id(key: bytes) -> str:
    """A name for the key that says nothing about it: 64 bits of a hash."""
    return hashlib.sha256(b"valkyrie master key id\0" + key).hexdigest()[:16]


@dataclass(frozen=True)
class Box:
    """Something encrypted; `data` is nonce, ciphertext and tag."""

    key: str
    data: bytes


class WrongKeyError(StateError):
    """The key that a box names is not there."""


class DamagedError(StateError):
    """A box is not what was written under this name and version."""


class Keyring:
    """Master keys, the one that encrypts first. Shows their ids only."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys = {key_id(key): key for key in keys}

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._keys)

    @property
    def current(self) -> str:
        return next(iter(self._keys))

    def seal(self, value: bytes, context: bytes, random_bytes: RandomBytes) -> Box:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - see open()

        nonce = random_bytes(NONCE_BYTES)
        made = AESGCM(self._keys[self.current]).encrypt(nonce, value, context)
        return Box(self.current, nonce + made)

    def open(self, box: Box, context: bytes, what: str) -> bytes:
        """The value. Raises WrongKeyError or DamagedError, which call it `what`."""
        # 7 MB of memory and 20 ms of a start, which only those pay who have credentials.
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        key = self._keys.get(box.key)
        if key is None:
            there = ", ".join(self._keys) or "none"
            raise WrongKeyError(
                f"{what} was encrypted with another master key: {box.key}, and there is {there}",
                "put that key back (docs/credentials.md), or set the credential anew",
            )
        try:
            return AESGCM(key).decrypt(box.data[:NONCE_BYTES], box.data[NONCE_BYTES:], context)
        except (InvalidTag, ValueError):
            raise DamagedError(
                f"{what} is damaged, or was written under another name or version",
                "restore credentials.json from a backup, or set the credential anew",
            ) from None


_TEXT_CONTEXT = b"valkyrie password_encrypted"


def encrypt_text(ring: Keyring, value: bytes, random_bytes: RandomBytes) -> str:
    """The value as text for `password_encrypted`: prefix, id of the key, then nonce and ciphertext."""
    box = ring.seal(value, _TEXT_CONTEXT, random_bytes)
    return f"{TEXT_PREFIX}:{box.key}:{base64.urlsafe_b64encode(box.data).decode()}"


def text_key_id(text: str) -> str | None:
    """The id of the master key that the text needs; None: it is not such a text."""
    parts = text.split(":")
    return parts[1] if len(parts) == 3 and parts[0] == TEXT_PREFIX and KEY_ID.fullmatch(parts[1]) else None


def decrypt_text(ring: Keyring, text: str) -> bytes:
    """Raises InvalidInput for other text, else what `Keyring.open` raises. Never shows the text."""
    key, coded = text_key_id(text), text.rpartition(":")[2]
    try:
        data = base64.b64decode(coded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if base64.urlsafe_b64encode(data).decode() != coded:
        data = b""  # other letters for the same bytes
    if key is None or len(data) <= NONCE_BYTES + TAG_BYTES:
        raise InvalidInput(
            "this password_encrypted was not made by Valkyrie, or is cut off",
            "make it with `valkyrie-ctl creds encrypt`",
        )
    return ring.open(Box(key, data), _TEXT_CONTEXT, "password_encrypted")
