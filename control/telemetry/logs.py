# SPDX-License-Identifier: Apache-2.0
"""The daemon's log: lines for people or JSON for programs, at a level that can change while it runs.

Only the appliance's own loggers go below INFO: at DEBUG, libraries show what they send.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO, get_args

from valkyrie.control.errors import InvalidInput
from valkyrie.control.telemetry.spans import trace_id

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["human", "json"]
LEVELS: tuple[str, ...] = get_args(Level)
OWN = ("valkyrie", "valkyried")
HUMAN = "%(levelname)s %(name)s: %(message)s"  # the journal has the time


class JsonFormatter(logging.Formatter):
    """A line each: time, level, logger, message; trace_id within a trace; error, with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace = trace_id()
        if trace is not None:
            told["trace_id"] = trace
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def set_up(level: str, form: Format, stream: TextIO = sys.stderr) -> None:
    """Once, at start."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(HUMAN))
    logging.getLogger().addHandler(handler)
    set_level(level)


def set_level(level: str) -> None:
    """From now on. Raises InvalidInput."""
    if level not in LEVELS:
        raise InvalidInput(f"there is no log level {level[:20]!r}", f"one of {', '.join(LEVELS)}", "log")
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(max(number, logging.INFO))
    for name in OWN:
        logging.getLogger(name).setLevel(number)


def level() -> str:
    """In force."""
    return logging.getLevelName(logging.getLogger(OWN[0]).getEffectiveLevel()).lower()
