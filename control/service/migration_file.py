# SPDX-License-Identifier: Apache-2.0
"""How far the migration of a store is, kept in state_dir/migration.json."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from valkyrie.adapters.migrate.plan import Record, packed, unpacked
from valkyrie.control.errors import StateError

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 20


class MigrationFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Record | None:
        """What was kept; None if nothing was. A damaged file is said and counts as none: packets come first,
        and the stores hold the note of the migration.
        """
        try:
            raw = self._path.read_bytes()[:MAX_BYTES]
        except FileNotFoundError:
            return None
        except OSError as error:
            log.error("the migration of a store cannot go on: reading %s: %s", self._path, error.strerror)  # noqa: TRY400 - no bug
            return None
        try:
            return unpacked(json.loads(raw))
        except (ValueError, TypeError, KeyError, AttributeError):
            log.error(  # noqa: TRY400 - no bug, so no traceback
                "the migration of a store cannot go on: %s is damaged; `valkyrie-ctl store migrate abort "
                "--force` goes back to the source",
                self._path,
            )
            return None

    def keep(self, record: Record | None) -> None:
        """All of it or nothing. Raises StateError."""
        fresh = self._path.with_suffix(".new")
        try:
            if record is None:
                self._path.unlink(missing_ok=True)
                return
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w") as file:
                json.dump(packed(record), file)
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(self._path)
        except OSError as error:
            raise StateError(
                f"writing {self._path}: {error.strerror}", "free some space or mend the rights"
            ) from error
