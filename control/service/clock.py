# SPDX-License-Identifier: Apache-2.0
"""Time and randomness as values that are passed in, so that tests set them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """`wall` in seconds since 1970, `mono_ns` in ns since boot as the kernel's program counts them."""

    wall: Callable[[], float] = time.time
    mono_ns: Callable[[], int] = time.monotonic_ns


RANDOM_BYTES: Callable[[int], bytes] = os.urandom
