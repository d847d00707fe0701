# SPDX-License-Identifier: Apache-2.0
"""One heap for all threads of this process.

glibc gives each thread a heap of its own, so that they need not wait for each other; what a thread frees
in its own is of no use to the others. The daemon's dozen threads run one at a time, as Python has it: one
heap costs them no time, and some seconds after the start it saves 2 to 4 MB.
"""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8  # malloc.h


def share_heap() -> None:
    """From now on; to be called before the first thread starts. Another libc than glibc stays as it is."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(M_ARENA_MAX, 1)
