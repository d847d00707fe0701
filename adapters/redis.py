# SPDX-License-Identifier: Apache-2.0
"""Redis, through the `redis` package and its hiredis parser."""

from __future__ import annotations

import hiredis
from redis.asyncio import connection
from redis.exceptions import RedisError, ResponseError

from valkyrie.adapters.resp.link import Driver

DRIVER = Driver(
    "redis",
    connection.Connection,
    connection.UnixDomainSocketConnection,
    connection.DefaultParser,
    ResponseError,
    (RedisError,),
    hiredis.pack_command,
)
