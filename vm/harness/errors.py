# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a virtual machine, in words for people."""

from __future__ import annotations


class VmError(Exception):
    """`what` happened and to what, `why` as far as it is known, and what to do: `hint`."""

    def __init__(self, what: str, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        return "\n  ".join(part for part in (self.what, self.why, self.hint) if part)
