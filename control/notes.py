# SPDX-License-Identifier: Apache-2.0
"""What those who follow the events are told: the catalogue, of which docs/counters.md has the tables:
`python -m valkyrie.control.notes docs/counters.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeAlias, get_args

Kind = Literal["attach", "detach", "link", "alert", "store", "sync", "notify", "standby"]
Tell: TypeAlias = Callable[[Kind, str], None]
"""Tells a note of a kind, in words."""

NOTES: Mapping[Kind, str] = {
    "attach": "An interface was attached.",
    "detach": "An interface was detached, by hand or at the end of a trial.",
    "link": "An interface went down, came up, went away, or was attached again.",
    "alert": "An [alert](alerts.md) fires or is over.",
    "store": (
        "Another [store](stores.md#fallback) of the chain is in use, or none; a [migration](migration.md) "
        "goes on."
    ),
    "sync": (
        "The store that [keeps the state](durable-state.md) went away, refuses it, or is back; what was "
        "restored."
    ),
    "notify": "A way to [reach people](notifications.md) fails, or works again.",
    "standby": "This appliance follows another, follows it no more, or has [taken over](standby.md).",
}
assert tuple(NOTES) == get_args(Kind), "one catalogue, in one order"
LOST = (
    "This reader was too slow, or there were more than 1,000 drops a second to be told; `lost` says how many "
    "events it missed."
)
DROP: Mapping[tuple[str, ...], str] = {
    ("time",): "Seconds since 1970, of the packet.",
    ("kind",): "`drop` for these.",
    ("src", "dst"): "Addresses. IPv4 inside of v4-mapped and 6to4 is shown as IPv4.",
    ("sport", "dport"): "Ports; 0 if there are none.",
    ("protocol",): "Name or number, after IPv6 extension headers.",
    ("length",): "Bytes of the IP packet.",
    ("nic",): "Interface; `#7` if the one with that index has gone.",
    ("limit",): "The limit that dropped it; null if none did.",
    ("key",): "Whose bucket that limit asked, as `buckets list` writes it; null if none did.",
    ("reason",): "As above.",
    ("shadow",): "true: a shadow limit would have dropped it, it passed.",
}
BEGIN = "<!-- catalogue: made by `python -m valkyrie.control.notes docs/counters.md` -->"
END = "<!-- end of the catalogue -->"


def catalogue() -> Iterator[str]:
    """The lines of the tables: fields of a drop, and kinds of notes."""
    yield from ("| field | meaning |", "|---|---|")
    for names, meaning in DROP.items():
        yield f"| {', '.join(f'`{name}`' for name in names)} | {meaning} |"
    yield from ("", "Other kinds have `time`, `kind` and `what`, a sentence:", "")
    yield from ("| kind | meaning |", "|---|---|")
    for kind, meaning in (*NOTES.items(), ("lost", LOST)):
        yield f"| `{kind}` | {meaning} |"


def with_catalogue(page: str) -> str:
    """The page with the catalogue of this code."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([f"{before}{BEGIN}\n", *catalogue(), f"\n{END}{after}"])


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(with_catalogue(target.read_text()))
