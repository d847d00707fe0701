# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, in words for people: what happened, and what to do about it.

Every class has an exit code for the command line and a stable word for the API.
"""

from __future__ import annotations

from typing import ClassVar


class ValkyrieError(Exception):
    """An error that a person can act on. `what` says what happened and to what, `hint` what to do."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "error"

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what


class InvalidInput(ValkyrieError):  # noqa: N818 the API's word
    """Something typed or sent is wrong. `where` is the word, or the line and field."""

    exit_code = 2
    code = "invalid"

    def __init__(self, what: str, hint: str = "", where: str = "") -> None:
        super().__init__(what, hint)
        self.where = where

    def at(self, field: str) -> InvalidInput:
        """The same complaint, told for `field` of something larger ("limits[2].rate")."""
        return InvalidInput(self.what, self.hint, field)


class NotFound(ValkyrieError):  # noqa: N818 the API's word
    """There is no such limit, prefix, NIC or bucket."""

    exit_code = 3
    code = "not-found"


class Conflict(ValkyrieError):  # noqa: N818 the API's word
    """The request contradicts the state, for example a NIC that is attached already."""

    exit_code = 4
    code = "conflict"


class PermissionRefused(ValkyrieError):  # noqa: N818 the API's word
    """The caller may not do this."""

    exit_code = 5
    code = "permission"


class Unavailable(ValkyrieError):  # noqa: N818 the API's word
    """Something that is needed is not there: the daemon, the bpffs, a kernel feature."""

    exit_code = 6
    code = "unavailable"


class DataplaneError(ValkyrieError):
    """Building, loading or attaching the packet program failed."""

    exit_code = 7
    code = "dataplane"


class Foreign(ValkyrieError):  # noqa: N818 the API's word
    """Another XDP program holds the NIC."""

    exit_code = 8
    code = "foreign"


class StateError(ValkyrieError):
    """The state cannot be read or written: disk full, database damaged."""

    exit_code = 9
    code = "state"
