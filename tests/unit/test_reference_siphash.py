# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import pytest

from support.reference.siphash import siphash, siphash_words

PAPER_KEY = (0x0706050403020100, 0x0F0E0D0C0B0A0908)


def python_secret(seed: int) -> tuple[int, int]:
    """The key that CPython makes of PYTHONHASHSEED: a linear congruential generator's bytes."""
    state, key = seed, bytearray()
    for _ in range(16):
        state = (state * 214013 + 2531011) & 0xFFFFFFFF
        key.append(state >> 16 & 0xFF)
    return int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")


def test_siphash_2_4_gives_the_value_of_the_paper() -> None:
    assert siphash(PAPER_KEY, bytes(range(15)), compress=2, final=4) == 0xA129CA6149BE45E5


def test_siphash_1_3_gives_the_published_value_of_the_empty_message() -> None:
    assert siphash(PAPER_KEY, b"") == 0xABAC0158050FC4DC


@pytest.mark.skipif(sys.hash_info.algorithm != "siphash13", reason="this Python hashes otherwise")
@pytest.mark.parametrize("length", [1, 8, 16, 32, 48, 63, 300])
def test_siphash_1_3_agrees_with_the_hash_of_cpython(length: int) -> None:
    seed, message = 4711, bytes(i * 37 & 255 for i in range(length))
    script = f"print(hash(bytes.fromhex('{message.hex()}')))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": str(seed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert siphash(python_secret(seed), message) == int(done.stdout) % (1 << 64)


def test_words_and_a_length_block_are_hashed_as_their_little_endian_bytes() -> None:
    words = [0x0123456789ABCDEF, 7]
    message = bytes.fromhex("efcdab8967452301 0700000000000000")
    length = (len(message) & 255) << 56
    assert siphash_words(PAPER_KEY, [*words, length]) == siphash(PAPER_KEY, message)
