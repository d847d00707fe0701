# SPDX-License-Identifier: Apache-2.0
"""What a credential may be called and may hold. Errors name the name, never the value."""

from __future__ import annotations

import re

from valkyrie.control.errors import InvalidInput

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
MAX_VALUE_BYTES = 4096


def checked_name(name: str) -> str:
    """Raises InvalidInput."""
    if not NAME.fullmatch(name):
        # A password typed in the name's place must not be shown.
        raise InvalidInput(
            "that is no name of a credential",
            "up to 63 lower-case letters, digits, dots, hyphens, underscores: as valkey-password",
            "name",
        )
    return name


def checked_value(value: bytes) -> bytes:
    """Raises InvalidInput."""
    if not 1 <= len(value) <= MAX_VALUE_BYTES:
        size = f"has more than {MAX_VALUE_BYTES} bytes" if value else "is empty"  # of which not all are read
        raise InvalidInput(f"the value {size}", f"a value has 1 to {MAX_VALUE_BYTES} bytes", "value")
    return value


def without_newline(value: bytes) -> bytes:
    """What was piped, less the one line end that `echo` and editors add."""
    return value.removesuffix(b"\n").removesuffix(b"\r") if value.endswith(b"\n") else value
