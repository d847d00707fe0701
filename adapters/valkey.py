# SPDX-License-Identifier: Apache-2.0
"""Valkey, through the `valkey` package and its libvalkey parser."""

from __future__ import annotations

import libvalkey
from valkey.asyncio import connection
from valkey.exceptions import ResponseError, ValkeyError

from valkyrie.adapters.resp.link import Driver

DRIVER = Driver(
    "valkey",
    connection.Connection,
    connection.UnixDomainSocketConnection,
    connection.DefaultParser,
    ResponseError,
    (ValkeyError,),
    libvalkey.pack_command,
)
