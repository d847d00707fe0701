# SPDX-License-Identifier: Apache-2.0
"""The key of a bucket in words, and back: `198.51.100.7`, `198.51.100.0/24 dport 443`,
`10.0.0.1>10.0.0.2 proto tcp sport 53 dport 7`, `global`.

The kernel keeps 20 bytes a key (struct bucket_key). An IPv6 pair with more than two /64 in it does
not fit: it is named by its source /64 and eight bytes of its hash, `2001:db8::/64>#0123456789abcdef`.
A caller's own key (`id`) is named by its 128-bit hash, `#` and 32 digits, and found by its text too.
"""

import re
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Protocol

from valkyrie.control import abi
from valkyrie.control.errors import InvalidInput
from valkyrie.control.key import KeySpec
from valkyrie.control.prefix import MAPPED
from valkyrie.control.words import PROTOCOLS

BAN_KEY = KeySpec(src4=32, src6=64)
EXAMPLE = "write it as `buckets list` shows it, for example 198.51.100.7 or 10.0.0.1>10.0.0.2 dport 443"
MAX_TEXT = 200
MAX_OPAQUE_BYTES = 1024
OPAQUE = re.compile("#([0-9a-f]{32})")
NAMES = {number: word for word, number in PROTOCOLS.items()}
Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Record:
    """struct bucket_key; `pair6` is its UID_IPV6_PAIR."""

    dport: int
    addr: bytes
    pair6: bool = False


def opaque(key: str, group: str = "") -> Record:
    """The record of a key that is any text: its 128-bit hash, with the name of a caller's own limit as its
    group. Raises InvalidInput for a key that is empty or too long.
    """
    raw = key.encode()
    if not 0 < len(raw) <= MAX_OPAQUE_BYTES:
        raise InvalidInput(
            f"a key of {len(raw)} bytes", f"keys have 1 to {MAX_OPAQUE_BYTES} bytes of UTF-8", key[:32]
        )
    return Record(0, blake2b(group.encode() + b"\0" + raw if group else raw, digest_size=16).digest())


def paired(spec: KeySpec) -> bool:
    """Whether the kernel writes the key in the form of two ends."""
    return (spec.src4 is not None and spec.dst4 is not None) or spec.sport


def _network(raw: bytes, length4: int | None, length6: int | None) -> str:
    """An address with its prefix length, which is left out where it is the whole address."""
    if len(raw) == 4 or raw.startswith(MAPPED):
        return str(IPv4Network((raw[-4:], length4 or 0), strict=False)).removesuffix("/32")
    return str(IPv6Network((raw, length6 or 0), strict=False)).removesuffix("/128")


def name_of(record: Record, spec: KeySpec, fingerprint: int) -> str:
    """The key in words, for a bucket of a limit with this key."""
    if spec.id:
        return f"#{record.addr.hex()}"
    ends, sport, protocol = _ends(record, spec, fingerprint)
    words = [ends]
    if spec.proto and protocol is not None:
        words.append(f"proto {NAMES.get(protocol, protocol)}")
    if spec.sport and sport is not None:
        words.append(f"sport {sport}")
    if spec.dport:
        words.append(f"dport {record.dport}")
    return " ".join(word for word in words if word) or "global"


class Ends(Protocol):
    """What a key is made of, of a packet."""

    @property
    def src(self) -> Address: ...
    @property
    def dst(self) -> Address: ...
    @property
    def sport(self) -> int: ...
    @property
    def dport(self) -> int: ...
    @property
    def protocol(self) -> int: ...


def packet_key(packet: Ends, spec: KeySpec) -> str:
    """The key that a packet has under a limit, in the words of name_of; an IPv6 pair in full."""
    src = _network(packet.src.packed, spec.src4, spec.src6) if spec.src4 is not None else ""
    dst = _network(packet.dst.packed, spec.dst4, spec.dst6) if spec.dst4 is not None else ""
    words = [f"{src}>{dst}" if src and dst else src or dst]
    if spec.proto:
        words.append(f"proto {NAMES.get(packet.protocol, packet.protocol)}")
    if spec.sport:
        words.append(f"sport {packet.sport}")
    if spec.dport:
        words.append(f"dport {packet.dport}")
    return " ".join(word for word in words if word) or "global"


def _ends(record: Record, spec: KeySpec, fingerprint: int) -> tuple[str, int | None, int | None]:
    """The addresses, the source port and the protocol, as far as the record has them."""
    addr = record.addr
    if not paired(spec):
        if spec.dst4 is not None:
            return _network(addr, spec.dst4, spec.dst6), None, None
        return (_network(addr, spec.src4, spec.src6) if spec.src4 is not None else ""), None, None
    if record.pair6:
        left = _network(addr[:8] + bytes(8), None, min(spec.src6 or 0, 64)) if spec.src4 is not None else ""
        hashed = addr[8:] == fingerprint.to_bytes(8, "big")
        right = (
            f"#{addr[8:].hex()}" if hashed else _network(addr[8:] + bytes(8), None, min(spec.dst6 or 0, 64))
        )
        return f"{left}>{right}", None, None
    left = _network(addr[:4], spec.src4, None) if spec.src4 is not None else ""
    right = _network(addr[4:8], spec.dst4, None) if spec.dst4 is not None else ""
    both = f"{left}>{right}" if left and right else left or right
    return both, int.from_bytes(addr[8:10], "big"), addr[10]


def record_of(text: str, spec: KeySpec) -> Record:
    """The record of a key in words; addresses are cut to the key's prefix lengths.

    Raises InvalidInput naming the word that is wrong.
    """
    if spec.id:
        hashed = OPAQUE.fullmatch(text)
        return Record(0, bytes.fromhex(hashed[1])) if hashed else opaque(text)
    words = text[:MAX_TEXT].split()
    addressed = bool(words) and words[0] not in ("proto", "sport", "dport", "global")
    ends = words.pop(0) if addressed else ""
    if words == ["global"]:
        words = []
    if len(words) % 2:
        raise InvalidInput(f"key {text[:64]!r}: {words[-1]!r} has no value", EXAMPLE, words[-1])
    numbers = dict(zip(words[::2], words[1::2], strict=True))
    for word in numbers:
        if word not in ("proto", "sport", "dport"):
            raise InvalidInput(f"key: unknown word {word!r}", EXAMPLE, word)
    dport = _number(numbers, "dport", 65535) if spec.dport else 0
    left, arrow, right = ends.partition(">")
    if "#" in right:
        return Record(dport, _high(left) + _hash(right), pair6=True)
    if arrow and (spec.src4 is None or spec.dst4 is None):
        raise InvalidInput(f"key {ends!r} has two ends, the limit's key one", EXAMPLE, ends)
    if not arrow and spec.src4 is None:
        left, right = "", left
    src = _masked(left, spec.src4, spec.src6)
    dst = _masked(right, spec.dst4, spec.dst6)
    if not paired(spec):
        return Record(dport, dst or src or bytes(16))
    sport = _number(numbers, "sport", 65535) if spec.sport else 0
    protocol = _number(numbers, "proto", 255) if spec.proto else 0
    return _pair(src, dst, sport, protocol, dport)


def _pair(src: bytes, dst: bytes, sport: int, protocol: int, dport: int) -> Record:
    if all(not end or end.startswith(MAPPED) for end in (src, dst)):
        four = (src or bytes(16))[12:] + (dst or bytes(16))[12:]
        return Record(dport, four + sport.to_bytes(2, "big") + bytes([protocol]) + bytes(5))
    src, dst = src or bytes(16), dst or bytes(16)
    if any(src[8:]) or any(dst[8:]) or sport or protocol:
        raise InvalidInput(
            "an IPv6 pair this wide is named by its hash", "take the key from `valkyrie-ctl buckets list`"
        )
    return Record(dport, src[:8] + dst[:8], pair6=True)


def _number(numbers: dict[str, str], word: str, most: int) -> int:
    given = numbers.get(word, "")
    value = PROTOCOLS.get(given) if word == "proto" else None
    if value is None:
        if not (given.isascii() and given.isdigit() and len(given) < 6 and int(given) <= most):
            raise InvalidInput(
                f"key: {word} {given!r} is not a number from 0 to {most}", EXAMPLE, given or word
            )
        value = int(given)
    return value


def _address(text: str) -> Address:
    try:
        found = ip_address(text.split("/", maxsplit=1)[0])
    except ValueError as error:
        raise InvalidInput(f"key: {text[:64]!r} is no address", EXAMPLE, text[:64]) from error
    if isinstance(found, IPv6Address):
        return found.ipv4_mapped or found.sixtofour or found
    return found


def _masked(text: str, length4: int | None, length6: int | None) -> bytes:
    """16 bytes, IPv4 as v4-mapped; empty if the end is not part of the key."""
    if length4 is None or length6 is None:
        return b""
    found = _address(text)
    if isinstance(found, IPv4Address):
        return MAPPED + IPv4Network((found.packed, length4), strict=False).network_address.packed
    return IPv6Network((found.packed, length6), strict=False).network_address.packed


def _high(text: str) -> bytes:
    return _address(text).packed[:8] if text else bytes(8)


def _hash(text: str) -> bytes:
    try:
        found = bytes.fromhex(text.removeprefix("#"))
    except ValueError:
        found = b""
    if len(found) != 8:
        raise InvalidInput(f"key: {text[:64]!r} is no hash of 16 hexadecimal digits", EXAMPLE, text[:64])
    return found


def uid_word(uid: int, record: Record) -> int:
    """What struct bucket_key.uid holds for this record."""
    return uid | (abi.UID_IPV6_PAIR if record.pair6 else 0)
