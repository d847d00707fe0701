# SPDX-License-Identifier: Apache-2.0
"""Values in stores: what goes in comes out, and nothing that was tampered with."""

from __future__ import annotations

import contextlib
import os
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from valkyrie.adapters.codec import COMPRESSED, ENCRYPTED, HEADER, OVERHEAD, Codec
from valkyrie.adapters.errors import ConsistencyError, StoreConfigurationError
from valkyrie.adapters.secrets import Secret
from valkyrie.adapters.store import MAX_VALUE_BYTES

KEY = Secret(b"one key that is long enough")
OTHER = Secret(b"another key, as long as that")
TEXT = b"the same words again and again. " * 64


def codec(*, zstd: bool = False, secret: Secret | None = None) -> Codec:
    return Codec("zstd" if zstd else "none", 256, secret, os.urandom)


CODECS = [codec(), codec(zstd=True), codec(secret=KEY), codec(zstd=True, secret=KEY)]
values = st.one_of(
    st.binary(max_size=600),
    st.builds(lambda start, rest: bytes((start,)) + rest, st.integers(0xF0, 0xFF), st.binary(max_size=40)),
    st.integers().map(lambda n: str(n).encode()),
    st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=9), st.integers(1, 500)),
)


@given(key=st.text(max_size=20), value=values)
def test_what_goes_in_comes_out(key: str, value: bytes) -> None:
    for one in CODECS:
        stored = one.encode(key, value)
        assert one.decode(key, stored) == value
        assert len(stored) <= len(value) + OVERHEAD


@given(value=values)
def test_what_was_stored_before_compression_was_switched_on_stays_readable_and_the_other_way(
    value: bytes,
) -> None:
    assert codec(zstd=True).decode("k", codec().encode("k", value)) == value
    assert codec().decode("k", codec(zstd=True).encode("k", value)) == value


@given(text=st.text(max_size=300))
def test_text_is_stored_as_it_is_so_that_others_can_read_it(text: str) -> None:
    assert codec().encode("k", text.encode()) == text.encode()


@given(noise=st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_consistency_error(noise: bytes) -> None:
    for one in CODECS:
        for stored in (noise, *(bytes((HEADER | flags,)) + noise for flags in range(8))):
            with contextlib.suppress(ConsistencyError):
                assert len(one.decode("k", stored)) <= MAX_VALUE_BYTES


def test_what_shrinks_is_compressed_and_what_is_short_or_does_not_is_left() -> None:
    one = codec(zstd=True)
    assert len(one.encode("k", TEXT)) < len(TEXT) / 10
    assert one.encode("k", TEXT)[0] == HEADER | COMPRESSED
    noise = b"\0" + os.urandom(5000)
    assert one.encode("k", noise) == noise
    assert one.encode("k", b"a" * 255) == b"a" * 255


def test_nothing_of_the_value_or_the_secret_is_seen_in_the_store() -> None:
    stored = codec(secret=KEY).encode("k", TEXT)
    assert b"words" not in stored
    assert KEY.reveal() not in stored
    assert codec(secret=KEY).encode("k", TEXT) != stored


def test_any_changed_or_missing_byte_is_noticed() -> None:
    one = codec(zstd=True, secret=KEY)
    stored = one.encode("k", TEXT)
    for place in range(len(stored)):
        wrong = bytearray(stored)
        wrong[place] ^= 1
        with pytest.raises(ConsistencyError):
            one.decode("k", bytes(wrong))
        with pytest.raises(ConsistencyError):
            one.decode("k", stored[:place])


def test_a_value_moved_to_another_key_is_noticed() -> None:
    one = codec(secret=KEY)
    with pytest.raises(ConsistencyError, match="moved"):
        one.decode("admin", one.encode("guest", b"yes"))


def test_a_wrong_key_is_said_to_be_that() -> None:
    stored = codec(secret=KEY).encode("k", b"v")
    for one in (codec(secret=OTHER), codec()):
        with pytest.raises(ConsistencyError, match="a key that is not there"):
            one.decode("k", stored)


def test_with_encryption_on_bare_values_are_refused_but_for_counters() -> None:
    one = codec(secret=KEY)
    assert one.decode("k", b"-17") == b"-17"
    for bare in (b"", b"yes", b"017", b"1" * 30, bytes((HEADER,)) + b"yes"):
        with pytest.raises(ConsistencyError, match="not encrypted"):
            one.decode("k", bare)


def test_after_a_rotation_old_values_are_read_and_new_ones_need_the_new_key() -> None:
    one = codec(secret=KEY)
    old = one.encode("k", b"old")
    one.rotate(Secret(OTHER.reveal(), 2, (KEY,)))
    assert one.decode("k", old) == b"old"
    assert codec(secret=OTHER).decode("k", one.encode("k", b"new")) == b"new"


def test_a_key_that_could_be_guessed_is_refused_without_being_shown() -> None:
    with pytest.raises(StoreConfigurationError) as caught:
        codec(secret=Secret(b"hunter2"))
    assert "hunter2" not in str(caught.value)


def bombs() -> dict[str, bytes]:
    zeros = bytes(MAX_VALUE_BYTES + 1)
    compressor = zstandard.ZstdCompressor(level=3)
    unsized = zstandard.ZstdCompressor(level=3, write_content_size=False)
    small = bytearray(compressor.compress(bytes(300)))
    # Frame header: magic, descriptor, then here 2 bytes of content size less 256.
    struct.pack_into("<H", small, 5, 0)
    return {
        "larger than a value may be": compressor.compress(zeros),
        "of a size that is not said": unsized.compress(zeros),
        "of more than it says": bytes(small),
        "two in one": compressor.compress(TEXT) * 2,
    }


@pytest.mark.parametrize("kind", bombs())
def test_a_frame_that_would_fill_the_memory_is_refused(kind: str) -> None:
    with pytest.raises(ConsistencyError):
        codec().decode("k", bytes((HEADER | COMPRESSED,)) + bombs()[kind])


def test_the_largest_value_passes() -> None:
    one = codec(zstd=True, secret=KEY)
    assert one.decode("k", one.encode("k", bytes(MAX_VALUE_BYTES))) == bytes(MAX_VALUE_BYTES)
    assert one.encode("k", b"")[0] == HEADER | ENCRYPTED
