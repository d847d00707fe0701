# SPDX-License-Identifier: Apache-2.0
"""What callers hand to a store, checked before any store sees it, and alike for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from math import ceil, isfinite

from valkyrie.adapters.limit import MAX_TOKENS, Limit, LimitBook
from valkyrie.adapters.naming import MAX_KEY_BYTES, bucket_of
from valkyrie.adapters.store import MAX_VALUE_BYTES, Request
from valkyrie.control.cost import Cost
from valkyrie.control.errors import InvalidInput

MAX_TTL_MS = 10 * 365 * 86_400_000
INT64 = range(-(1 << 63), 1 << 63)  # for exact ints: what else is asked for is searched number by number

Ask = tuple[str, Cost, int]  # a bucket's name, what a token costs there, how many are asked for


def checked_key(key: str) -> str:
    """The key of a value. Raises InvalidInput unless it is 1 to 1,024 bytes of UTF-8."""
    if not 0 < len(encoded(key)) <= MAX_KEY_BYTES:
        raise InvalidInput(
            f"a key of {len(key.encode())} bytes", f"keys have 1 to {MAX_KEY_BYTES} bytes of UTF-8", key[:32]
        )
    return key


def encoded(key: str) -> bytes:
    """UTF-8 of it. Raises InvalidInput for a lone surrogate, which has none, and for what is no text."""
    try:
        return key.encode()
    except AttributeError as error:
        raise InvalidInput(f"a key of type {type(key).__name__}", "keys are text: write it as str") from error
    except UnicodeEncodeError as error:
        raise InvalidInput("a key that is no Unicode text", "encode bytes as hexadecimal digits") from error


def checked_value(value: bytes, most: int = MAX_VALUE_BYTES) -> bytes:
    """The value. Raises InvalidInput when it has more bytes than the store takes, or is something else."""
    if not isinstance(value, bytes | bytearray):  # bytes(5) would be five zeros
        raise InvalidInput(f"a value of type {type(value).__name__}", "values are bytes: encode text first")
    if len(value) > most:
        raise InvalidInput(f"a value of {len(value)} bytes", f"this store takes {most} at most")
    return bytes(value)


def checked_ttl(ttl: float | None) -> int | None:
    """Whole milliseconds, rounded up, so that no value goes before its time; None: it stays."""
    if ttl is None:
        return None
    if not isfinite(ttl) or not 0 < ttl * 1000 <= MAX_TTL_MS:
        raise InvalidInput(f"a TTL of {ttl} seconds", f"more than 0, at most {MAX_TTL_MS // 1000}", str(ttl))
    return ceil(round(ttl * 1000, 6))


def checked_amount(amount: object) -> int:
    """What to add. Raises InvalidInput when it is no integer of 64 bits."""
    if not isinstance(amount, int) or not INT64.start <= amount < INT64.stop:
        raise InvalidInput(f"cannot add {str(amount)[:64]}", "an int of 64 bits with sign")
    return int(amount)  # of a subclass: the client libraries take exact ones


def checked_tokens(n: object) -> int:
    if not isinstance(n, int) or not 0 <= n <= MAX_TOKENS:
        told = str(n)[:64]
        raise InvalidInput(f"cannot take {told} tokens", f"an int, 0 to {MAX_TOKENS} in one call", told)
    return int(n)


def cost_for(limit: Limit, key: str) -> Cost:
    """The figures in force for a key that `bucket_of` took: an override's, else the limit's."""
    if limit.overrides is None:
        return limit.cost
    address = end_of(key, destination=limit.overrides.destination)
    return (limit.overrides.find(address) if address else None) or limit.cost


def end_of(key: str, *, destination: bool) -> IPv4Address | IPv6Address | None:
    """The address of one end of a key, as it is written; None: that end is a hash, or there is none."""
    ends = key.split(maxsplit=1)[0].split(">")
    try:
        return ip_address(ends[-1 if destination else 0].split("/", maxsplit=1)[0])
    except ValueError:
        return None


async def asks(book: LimitBook, requests: Sequence[Request]) -> list[Ask]:
    """What to take from which buckets, in order. Raises InvalidInput, NotFound, or the book's StoreError."""
    limits: dict[str, Limit] = {}
    found = []
    for request in requests:
        n = checked_tokens(request.n)
        limit = request.limit
        if isinstance(limit, str):
            if limit not in limits:
                limits[limit] = await book.limit(limit)
            limit = limits[limit]
        encoded(request.key)
        found.append((bucket_of(limit, request.key), cost_for(limit, request.key), n))
    return found
