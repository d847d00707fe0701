# SPDX-License-Identifier: Apache-2.0
"""How a run ends before its time: by SIGTERM or Ctrl-C, or at its deadline. Once: cleanup is left alone."""

from __future__ import annotations

import signal
from types import FrameType

ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(BaseException):
    """Somebody wants the run to end."""


class Late(BaseException):
    """The deadline is over. No error of a step, which somebody might catch and go on."""


def _quiet() -> None:
    for number in (*ENDS, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def arm(seconds: int) -> None:
    """From here on the main thread is interrupted by those signals, and after `seconds`."""

    def late(number: int, frame: FrameType | None) -> None:
        _quiet()
        raise Late(
            f"the run has not ended within {seconds} s and was given up\n  See the logs in its results."
        )

    def stop(number: int, frame: FrameType | None) -> None:
        _quiet()
        raise Stopped

    for number in ENDS:
        signal.signal(number, stop)
    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)


def no_deadline() -> None:
    """What follows lasts as long as somebody wants."""
    signal.alarm(0)
