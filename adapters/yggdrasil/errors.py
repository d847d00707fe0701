# SPDX-License-Identifier: Apache-2.0
"""The kernel's errors as a store's. A call that fails had no effect: a test run either ran or did not."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from valkyrie.adapters.errors import (
    AuthorizationFailed,
    ConsistencyError,
    StoreConnectionError,
    StoreError,
    StoreUnavailable,
)
from valkyrie.control.errors import (
    Conflict,
    DataplaneError,
    NotFound,
    PermissionRefused,
    Unavailable,
)

RIGHTS = "run it as root, or with CAP_BPF, CAP_NET_ADMIN and, for the pins' folder, CAP_DAC_READ_SEARCH"


def refused(what: str) -> AuthorizationFailed:
    return AuthorizationFailed(f"the kernel's table: {what}", RIGHTS)


@contextmanager
def opening() -> Iterator[None]:
    """Around opening the pins."""
    try:
        yield
    except NotFound as error:
        hint = "start valkyried; it builds this a second after it has begun to enforce"
        raise StoreConnectionError(f"the kernel's table is not there: {error.what}", hint) from error
    except (PermissionRefused, PermissionError) as error:
        raise refused(str(getattr(error, "what", error))) from error
    except Conflict as error:
        raise ConsistencyError(error.what, error.hint) from error


def translated(error: Exception) -> StoreError:
    """What a call raised."""
    if isinstance(error, NotFound):
        return StoreConnectionError(f"the kernel's table is not there: {error.what}", "start valkyried")
    if isinstance(error, PermissionRefused):
        return refused(error.what)
    if isinstance(error, Unavailable):
        return StoreUnavailable(error.what, error.hint)
    if isinstance(error, Conflict | DataplaneError):
        return ConsistencyError(error.what, error.hint)
    if isinstance(error, OSError):
        if error.errno in (errno.EPERM, errno.EACCES):
            return refused(str(error))
        return StoreUnavailable(f"the kernel did not run the call: {error}", "see `valkyrie-ctl doctor`")
    raise error


def as_store_error(error: Exception) -> Exception:
    return error if isinstance(error, StoreError) else translated(error)
