# SPDX-License-Identifier: Apache-2.0
"""Send at a rate: how many frames are due, and when to stop."""

import time
from collections.abc import Callable
from dataclasses import dataclass

LONGEST_WAIT_S = 0.001


@dataclass(frozen=True)
class Sent:
    """Frames handed to the device, and the monotonic ns before the first and after the last."""

    frames: int
    begin_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.begin_ns) / 1e9

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds if self.frames else 0.0


@dataclass
class Progress:
    """Frames sent so far, for who watches from another thread."""

    frames: int = 0


def send_paced(
    run: Callable[[int], None],
    progress: Progress,
    *,
    frames: int | None = None,
    seconds: float | None = None,
    rate: float | None = None,
    at_once: int = 64,
    stop: Callable[[], bool] = lambda: False,
) -> Sent:
    """Call `run` with the number of frames that are due, until `frames`, `seconds` or `stop` end it.

    `rate` is in frames a second; without one, `at_once` frames are always due.
    """
    begin = time.monotonic_ns()
    end = begin + round(seconds * 1e9) if seconds is not None else None
    while True:
        now = time.monotonic_ns()
        sent = progress.frames
        if (end is not None and now >= end) or (frames is not None and sent >= frames) or stop():
            return Sent(sent, begin, now)
        due = at_once if rate is None else int((now - begin) * rate / 1e9) + 1 - sent
        if frames is not None:
            due = min(due, frames - sent)
        if due > 0:
            run(due)
            progress.frames += due
        else:
            time.sleep(min(1 / (rate or 1), LONGEST_WAIT_S))
