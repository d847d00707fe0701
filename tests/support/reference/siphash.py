# SPDX-License-Identifier: Apache-2.0
"""SipHash-c-d over bytes, and over 64-bit words as the bucket hash uses it."""

from __future__ import annotations

from collections.abc import Iterable

WORD = (1 << 64) - 1
State = tuple[int, int, int, int]


def _rotate(word: int, by: int) -> int:
    return (word << by | word >> (64 - by)) & WORD


def _round(state: State) -> State:
    v0, v1, v2, v3 = state
    v0 = (v0 + v1) & WORD
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 = (v2 + v3) & WORD
    v3 = _rotate(v3, 16) ^ v2
    v0 = (v0 + v3) & WORD
    v3 = _rotate(v3, 21) ^ v0
    v2 = (v2 + v1) & WORD
    v1 = _rotate(v1, 17) ^ v2
    v2 = _rotate(v2, 32)
    return v0, v1, v2, v3


def _blocks(key: tuple[int, int], blocks: Iterable[int], compress: int, final: int) -> int:
    k0, k1 = key
    start = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
    state = (k0 ^ start[0], k1 ^ start[1], k0 ^ start[2], k1 ^ start[3])
    for block in blocks:
        v0, v1, v2, v3 = state
        state = (v0, v1, v2, v3 ^ block)
        for _ in range(compress):
            state = _round(state)
        v0, v1, v2, v3 = state
        state = (v0 ^ block, v1, v2, v3)
    v0, v1, v2, v3 = state
    state = (v0, v1, v2 ^ 0xFF, v3)
    for _ in range(final):
        state = _round(state)
    v0, v1, v2, v3 = state
    return v0 ^ v1 ^ v2 ^ v3


def siphash(key: tuple[int, int], message: bytes, *, compress: int = 1, final: int = 3) -> int:
    """64 bits of SipHash-compress-final of `message` (any length) under the two words of `key`."""
    whole = len(message) & ~7
    blocks = [int.from_bytes(message[i : i + 8], "little") for i in range(0, whole, 8)]
    blocks.append(int.from_bytes(message[whole:], "little") | (len(message) & 255) << 56)
    return _blocks(key, blocks, compress, final)


def siphash_words(key: tuple[int, int], words: Iterable[int]) -> int:
    """SipHash-1-3 of 64-bit words whose first tells how many follow: no block states the length."""
    return _blocks(key, words, 1, 3)
