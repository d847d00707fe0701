# SPDX-License-Identifier: Apache-2.0
"""Keys: what gets a bucket of its own. `global`, or parts joined by `+`:

`src[/N]` and `src6/M` (together: `src/24+src6/56`), `dst[/N]` and `dst6/M`, `sport`, `dport`, `flow`.
`src` is /32 and, for IPv6, /64: the smallest piece of IPv6 that one customer holds. `dst` is /32 and /128.
A part that names one version leaves the other at these. `flow` is both whole addresses, both ports
and the protocol. `id` is the text that callers of `try_consume` name: no packet has one, so such a
limit is for calls alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from valkyrie.control.errors import InvalidInput

WORDS = ("global", "src", "src6", "dst", "dst6", "sport", "dport", "flow", "id")
SRC_LENGTHS = (32, 64)
DST_LENGTHS = (32, 128)


@dataclass(frozen=True, slots=True)
class KeySpec:
    """Prefix lengths of the addresses in the key (None: not part of it), and what else is part of it."""

    src4: int | None = None
    src6: int | None = None
    dst4: int | None = None
    dst6: int | None = None
    sport: bool = False
    dport: bool = False
    proto: bool = False
    id: bool = False

    @property
    def is_global(self) -> bool:
        return self == KeySpec()

    @property
    def is_shared(self) -> bool:
        """Whether many hosts use one bucket, so that several CPUs are at it at once."""
        return not self.id and (self.src4 or 0) < 32 and (self.dst4 or 0) < 32


ID = KeySpec(id=True)
FLOW = KeySpec(32, 128, 32, 128, sport=True, dport=True, proto=True)
ALONE = {"global": KeySpec(), "flow": FLOW, "id": ID}


def parse_key(text: str) -> KeySpec:
    """The key that `text` says; raises InvalidInput naming the wrong part."""
    words = text.strip().split("+")
    if len(words) == 1 and words[0] in ALONE:
        return ALONE[words[0]]
    lengths: dict[str, int] = {}
    for word in words:
        name, slash, digits = word.partition("/")
        if name not in WORDS:
            raise InvalidInput(f"key {text[:64]!r}: unknown part {word[:32]!r}", _hint(name), word[:32])
        if name in lengths or name in ALONE:
            why = "stands alone" if name in ALONE else "is there twice"
            raise InvalidInput(f"key {text[:64]!r}: {name} {why}", "for example src/24+dport", word)
        lengths[name] = _length(text, word, name, digits, given=bool(slash))
    src4, src6 = _pair(lengths, "src", SRC_LENGTHS)
    dst4, dst6 = _pair(lengths, "dst", DST_LENGTHS)
    return KeySpec(src4, src6, dst4, dst6, sport="sport" in lengths, dport="dport" in lengths)


def format_key(key: KeySpec) -> str:
    """Canonical text: parse_key(format_key(k)) == k."""
    for word, whole in ALONE.items():
        if key == whole:
            return word
    parts = [*_format_pair("src", key.src4, key.src6, SRC_LENGTHS)]
    parts += _format_pair("dst", key.dst4, key.dst6, DST_LENGTHS)
    parts += [name for name, there in (("sport", key.sport), ("dport", key.dport)) if there]
    return "+".join(parts)


def _hint(name: str) -> str:
    near = get_close_matches(name, WORDS, 1)
    return f"did you mean {near[0]}?" if near else f"parts are {', '.join(WORDS)}"


def _length(text: str, word: str, name: str, digits: str, *, given: bool) -> int:
    if name in ("sport", "dport"):
        if given:
            raise InvalidInput(f"key {text[:64]!r}: {name} has no prefix length", f"write {name}", word[:32])
        return 0
    bits = 128 if name.endswith("6") else 32
    if not given and bits == 128:
        raise InvalidInput(f"key {text[:64]!r}: {name} needs a length", f"write {name}/64", word)
    if not given:
        return bits
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 3 and 1 <= int(digits) <= bits):
        hint = "for everything in one bucket write global" if digits == "0" else f"it goes from 1 to {bits}"
        raise InvalidInput(f"key {text[:64]!r}: length {digits[:32]!r} of {name} is wrong", hint, word[:32])
    return int(digits)


def _pair(lengths: dict[str, int], name: str, usual: tuple[int, int]) -> tuple[int | None, int | None]:
    if name not in lengths and f"{name}6" not in lengths:
        return None, None
    return lengths.get(name, usual[0]), lengths.get(f"{name}6", usual[1])


def _format_pair(name: str, four: int | None, six: int | None, usual: tuple[int, int]) -> list[str]:
    if four is None:
        return []
    parts = [name if four == usual[0] else f"{name}/{four}"]
    return parts if six == usual[1] else [*parts, f"{name}6/{six}"]
