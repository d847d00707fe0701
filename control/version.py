# SPDX-License-Identifier: Apache-2.0
"""Which version this is. The package's metadata is read when somebody asks, which is after start."""

from __future__ import annotations

from functools import cache


@cache
def installed() -> str:
    """The installed version; `source` when run from a checkout that is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - costs 20 ms

    try:
        return version("valkyrie")
    except PackageNotFoundError:
        return "source"
