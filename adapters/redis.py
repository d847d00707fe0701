# SPDX-License-Identifier: Apache-2.0
"""Redis, through the `redis` package and its hiredis parser."""

from __future__ import annotations

import hiredis
from redis.asyncio import connection
from redis.exceptions import RedisError, ResponseError

from valkyrie.adapters.limit import LimitBook
from valkyrie.adapters.resp.adapter import RespAdapter
from valkyrie.adapters.resp.link import Driver
from valkyrie.adapters.secrets import Secrets
from valkyrie.adapters.settings import RedisSettings

DRIVER = Driver(
    "redis",
    connection.Connection,
    connection.UnixDomainSocketConnection,
    connection.DefaultParser,
    ResponseError,
    (RedisError,),
    hiredis.pack_command,
)


class RedisAdapter(RespAdapter):
    """Redis 7 and later: single server, Sentinel, Cluster."""

    driver = DRIVER

    def __init__(
        self,
        settings: RedisSettings,
        appliance: str,
        book: LimitBook,
        secrets: Secrets,
        *,
        allow_flush: bool = False,
    ) -> None:
        super().__init__(settings, appliance, book, secrets, allow_flush=allow_flush)
