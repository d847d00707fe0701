# SPDX-License-Identifier: Apache-2.0
"""The note of a migration, which lies in both stores as the document `migration`. Pure.

Whoever uses one of the two reads it about once a second. The phases, in order:

    copying    the source decides; what it does is told to the target afterwards
    switching  a taking of tokens must be allowed by the source and then by the target
    cutover    the target decides; the source is told
    cleaning   the target decides; the source is told nothing more and is emptied

and back again, from any of them but `cleaning`:

    returning  as `switching`, the target first
    aborting   the source decides; the target is emptied

A phase is left only when everybody has had the time to see it, and nobody decides by what was read longer
ago. So nobody asks the source alone while another asks the target alone, and a bucket never admits at both.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final, Literal, get_args

DOCUMENT: Final = "migration"
VERSION = 1
MAX_BYTES = 4096
POLL_S = 1.0  # between two looks of somebody who uses a store
BUSY_POLL_S = 0.5  # while there is a migration
SEEN_S = 2.5  # after which everybody has seen a note: a poll, its answer, and a call under way
UNDER_WAY_S = 0.5  # of it for the call
HELD_S = SEEN_S - UNDER_WAY_S  # for which a note that was read is decided by: a lease
UNNOTED_S = 2 * SEEN_S - UNDER_WAY_S  # likewise that there is none: `copying` and `switching` come first

Phase = Literal["copying", "switching", "cutover", "cleaning", "returning", "aborting"]


@dataclass(frozen=True, slots=True)
class Note:
    """`epoch` is of the migration, in milliseconds since 1970; `serial` counts its phases."""

    epoch: int
    serial: int
    source: str
    target: str
    phase: Phase

    @property
    def order(self) -> tuple[int, int]:
        """Of two notes the greater is in force."""
        return self.epoch, self.serial

    @property
    def primary(self) -> str:
        """The store that is read, and asked first."""
        return self.target if self.phase in ("cutover", "cleaning", "returning") else self.source

    @property
    def secondary(self) -> str:
        return self.other(self.primary)

    @property
    def mirrors(self) -> bool:
        """Whether the secondary store is told what the primary did."""
        return self.phase in ("copying", "cutover")

    @property
    def last(self) -> bool:
        """Whether no other phase follows: the store that decides goes on to when the note is gone."""
        return self.phase in ("cleaning", "aborting")

    @property
    def both(self) -> bool:
        """Whether tokens are taken from both stores."""
        return self.phase in ("switching", "returning")

    def other(self, name: str) -> str:
        return self.target if name == self.source else self.source

    def packed(self) -> bytes:
        return json.dumps({"version": VERSION, **asdict(self)}).encode()


def read_note(content: bytes | None) -> Note | None:
    """The note; None if there is none, or what lies there cannot be understood."""
    if content is None or len(content) > MAX_BYTES:
        return None
    try:
        fields = json.loads(content)
        if fields["version"] != VERSION or fields["phase"] not in get_args(Phase):
            return None
        note = Note(
            int(fields["epoch"]),
            int(fields["serial"]),
            str(fields["source"]),
            str(fields["target"]),
            fields["phase"],
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return note if note.source != note.target else None
