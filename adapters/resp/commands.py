# SPDX-License-Identifier: Apache-2.0
"""Which word of a command is its key, and how script calls are spelled. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from valkyrie.adapters.resp.link import Command, Word

if TYPE_CHECKING:
    from valkyrie.adapters.resp.scripts import Script

KEYLESS = frozenset(
    {"PING", "TIME", "INFO", "CONFIG", "SCAN", "DBSIZE", "SCRIPT", "ROLE", "CLUSTER", "CLIENT", "ACL", "WAIT"}
)
SCRIPTS = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO"})


def key_of(command: Command) -> str | bytes | None:
    """The key that picks a cluster's node, None if any will do."""
    name = command[0]
    word = name.upper() if isinstance(name, str) else str(name)
    at = 3 if word in SCRIPTS else 1
    if word in KEYLESS or len(command) <= at or (word in SCRIPTS and not int(command[2])):
        return None
    key = command[at]
    return str(key) if isinstance(key, int) else key


def evalsha_of(script: Script, keys: Sequence[str], args: Sequence[Word]) -> Command:
    return ("EVALSHA", script.sha, len(keys), *keys, *args)


def eval_of(script: Script, keys: Sequence[str], args: Sequence[Word]) -> Command:
    """Runs the script and has the server keep it."""
    return ("EVAL", script.text, len(keys), *keys, *args)
