# SPDX-License-Identifier: Apache-2.0
"""Values on their way into a store and back: compressed, encrypted, or as they are.

A stored value that begins with a byte from 0xF8 on has a header; any other is the value itself. No UTF-8
text begins so: text and numbers stay readable by others and countable by the server, and what was stored
before compression was switched on stays readable. The header byte is 0xF8 with flags:

    0xF8 | COMPRESSED (1) | ENCRYPTED (2)      0xFC and above: of a later version

Then, if encrypted, 4 bytes id of the key, 12 bytes nonce, ciphertext and tag; else the content, which is
one zstd frame if compressed. Compression comes before encryption. Header and store key are authenticated,
so a value cannot be moved to another key; that the server gives an older value is not detected.

With encryption on, values without it are refused, for else the server could replace any by another.
Counters that the server itself counts are the exception: integers in decimal.

Nonces are random, 96 bits: rotate the key before it has written 2^32 values (1,000 a second: 49 days) to
keep the chance of two with one nonce below 2^-32.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Literal

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from valkyrie.adapters.errors import ConsistencyError, StoreConfigurationError
from valkyrie.adapters.secrets import Secret
from valkyrie.adapters.store import MAX_VALUE_BYTES

HEADER = 0xF8
COMPRESSED, ENCRYPTED = 1, 2
LATER = 0xFC
LEVEL = 3
ID_BYTES = 4
NONCE_BYTES = 12
TAG_BYTES = 16
OVERHEAD = 1 + ID_BYTES + NONCE_BYTES + TAG_BYTES  # at most, beside the content
MIN_SECRET_BYTES = 16
INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")

RandomBytes = Callable[[int], bytes]


class ValueKeys:
    """The key that encrypts and the earlier ones that still open, derived from a secret's versions."""

    def __init__(self, secret: Secret) -> None:
        if len(secret.reveal()) < MIN_SECRET_BYTES:
            raise StoreConfigurationError(
                f"the key of values has fewer than {MIN_SECRET_BYTES} bytes",
                "make one by `openssl rand -base64 32` and give it to `valkyrie-ctl creds set`",
            )
        self._ciphers: dict[bytes, AESGCM] = {}
        for version in (secret, *secret.previous):
            key = HKDF(SHA256(), 32, None, b"valkyrie values").derive(version.reveal())
            self._ciphers.setdefault(hashlib.sha256(b"id\0" + key).digest()[:ID_BYTES], AESGCM(key))

    def newest(self) -> tuple[bytes, AESGCM]:
        return next(iter(self._ciphers.items()))

    def find(self, key_id: bytes) -> AESGCM | None:
        return self._ciphers.get(key_id)


class Codec:
    """For use by one thread at a time, as zstd's contexts are."""

    def __init__(
        self,
        compression: Literal["none", "zstd"],
        min_bytes: int,
        secret: Secret | None,
        random_bytes: RandomBytes,
    ) -> None:
        self._compressor = zstandard.ZstdCompressor(level=LEVEL) if compression == "zstd" else None
        self._decompressor = zstandard.ZstdDecompressor()
        self._min = min_bytes
        self._random = random_bytes
        self._keys = None if secret is None else ValueKeys(secret)

    def rotate(self, secret: Secret) -> None:
        """Encrypt with this secret from now on; what its previous versions encrypted stays readable."""
        self._keys = ValueKeys(secret)

    def encode(self, key: str, value: bytes) -> bytes:
        """What is stored under `key` for `value`."""
        flags, content = 0, value
        if self._compressor is not None and len(value) >= self._min:
            smaller = self._compressor.compress(value)
            if len(smaller) < len(value):
                flags, content = COMPRESSED, smaller
        if self._keys is not None:
            return self._encrypted(self._keys, key, bytes((HEADER | flags | ENCRYPTED,)), content)
        if flags or value[:1] >= bytes((HEADER,)):
            return bytes((HEADER | flags,)) + content
        return value

    def decode(self, key: str, stored: bytes) -> bytes:
        """The value stored under `key`. Raises ConsistencyError."""
        first = stored[0] if stored else 0
        if first >= LATER:
            raise ConsistencyError(
                f"the value of {key!r} was written by a later Valkyrie, or by something else",
                "upgrade this one, or set the value again",
            )
        if self._keys is not None and not (first >= HEADER and first & ENCRYPTED):
            if INTEGER.fullmatch(stored):
                return stored
            raise ConsistencyError(
                f"the value of {key!r} is not encrypted, and encryption is on",
                "set it again; what somebody else put there is not trusted",
            )
        if first < HEADER:
            return stored
        content = self._decrypted(key, stored) if first & ENCRYPTED else stored[1:]
        return self._expanded(key, content) if first & COMPRESSED else content

    def _encrypted(self, keys: ValueKeys, key: str, header: bytes, content: bytes) -> bytes:
        key_id, cipher = keys.newest()
        nonce = self._random(NONCE_BYTES)
        head = header + key_id
        return head + nonce + cipher.encrypt(nonce, content, _context(head, key))

    def _decrypted(self, key: str, stored: bytes) -> bytes:
        head, rest = stored[: 1 + ID_BYTES], stored[1 + ID_BYTES :]
        cipher = None if self._keys is None else self._keys.find(head[1:])
        if cipher is None:
            raise ConsistencyError(
                f"the value of {key!r} is encrypted with a key that is not there ({head[1:].hex()})",
                "name its credential in `encryption_credential`; two earlier versions of it are kept",
            )
        try:
            return cipher.decrypt(rest[:NONCE_BYTES], rest[NONCE_BYTES:], _context(head, key))
        except (InvalidTag, ValueError):
            raise ConsistencyError(
                f"the value of {key!r} was changed in the store, cut off or moved from another key",
                "set it again",
            ) from None

    def _expanded(self, key: str, frame: bytes) -> bytes:
        """A frame says its size, which is judged before a byte of it is made."""
        try:
            size = zstandard.frame_content_size(frame)
            if not 0 <= size <= MAX_VALUE_BYTES:
                told = "of unknown size" if size < 0 else f"of {size} bytes"
                raise ConsistencyError(
                    f"the value of {key!r} would be one {told}: the most is {MAX_VALUE_BYTES}", "set it again"
                )
            return self._decompressor.decompress(
                frame, max_output_size=MAX_VALUE_BYTES, allow_extra_data=False
            )
        except zstandard.ZstdError:
            raise ConsistencyError(
                f"the value of {key!r} is damaged: no zstd frame", "set it again"
            ) from None


def _context(head: bytes, key: str) -> bytes:
    return head + key.encode("utf-8", "surrogatepass")
