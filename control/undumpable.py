# SPDX-License-Identifier: Apache-2.0
"""No core dumps of this process, and no debugger but root's: its memory holds passwords and keys."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import resource

PR_SET_DUMPABLE = 4  # linux/prctl.h

log = logging.getLogger(__name__)


def forbid_core_dumps() -> None:
    """For this process and what it forks; a program that it starts may dump again, as far as the limit
    of 0 bytes lets it, which handlers of cores in user space do not heed.
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("core dumps cannot be forbidden: %s", os.strerror(ctypes.get_errno()))
