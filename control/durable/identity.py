# SPDX-License-Identifier: Apache-2.0
"""Who this appliance is to a store: a random token, kept so that a restart need not wait for itself.

The token is bound to the machine: a copy of the disk that starts elsewhere makes its own, so that two of
one name do not take each other for themselves.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from valkyrie.control.errors import StateError

MACHINE_ID = Path("/etc/machine-id")
TOKEN_BYTES = 16
MAX_FILE_BYTES = 4096


def machine(path: Path = MACHINE_ID) -> str:
    """A machine by a hash of its id (which is not to be shown); its name where it has none."""
    try:
        raw = path.read_bytes()[:MAX_FILE_BYTES].strip()
    except OSError:
        raw = b""
    return blake2b(raw or socket.gethostname().encode(), digest_size=8, person=b"valkyrie").hexdigest()


def token_of(path: Path, where: str, random_bytes: Callable[[int], bytes]) -> str:
    """The token kept at `path`, a new one if there is none or it is another machine's (`where`).

    Raises StateError if it cannot be kept.
    """
    try:
        kept = json.loads(path.read_bytes()[:MAX_FILE_BYTES])
        if kept["machine"] == where and len(bytes.fromhex(kept["token"])) == TOKEN_BYTES:
            return str(kept["token"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or damaged: a new one is always right, and only waits longer
    token = random_bytes(TOKEN_BYTES).hex()
    fresh = path.with_suffix(".new")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump({"machine": where, "token": token}, file)
        fresh.rename(path)
    except OSError as error:
        raise StateError(f"writing {path}: {error.strerror}", "free some space or mend the rights") from error
    return token
