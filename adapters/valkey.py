# SPDX-License-Identifier: Apache-2.0
"""Valkey, through the `valkey` package and its libvalkey parser."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Callable

import libvalkey
from valkey.asyncio import connection
from valkey.exceptions import ResponseError, ValkeyError

from valkyrie.adapters.codec import Codec
from valkyrie.adapters.limit import LimitBook
from valkyrie.adapters.resp.adapter import RespAdapter
from valkyrie.adapters.resp.link import Driver
from valkyrie.adapters.secrets import Secret, Secrets
from valkyrie.adapters.settings import ValkeySettings
from valkyrie.adapters.store import Feature

DRIVER = Driver(
    "valkey",
    connection.Connection,
    connection.UnixDomainSocketConnection,
    connection.DefaultParser,
    ResponseError,
    (ValkeyError,),
    libvalkey.pack_command,
)


class ValkeyAdapter(RespAdapter):
    """Valkey, or Redis 7 and later by this driver. Values may be compressed and encrypted, and read from
    replicas: what a replica says may be some milliseconds old, or older when it lags.
    """

    driver = DRIVER

    def __init__(
        self,
        settings: ValkeySettings,
        appliance: str,
        book: LimitBook,
        secrets: Secrets,
        *,
        allow_flush: bool = False,
    ) -> None:
        replicas = settings.read_from == "replica"
        super().__init__(settings, appliance, book, secrets, allow_flush=allow_flush, read_replicas=replicas)
        self._valkey = settings
        self._unwatch: Callable[[], None] = lambda: None

    async def start(self) -> None:
        self._codec = await self._make_codec()
        try:
            await super().start()
        except BaseException:
            self._unwatch()
            raise

    async def close(self) -> None:
        self._unwatch()
        await super().close()

    def supports_feature(self, feature: Feature) -> bool:
        if feature is Feature.COMPRESSION:
            return self._valkey.compression != "none"
        if feature is Feature.ENCRYPTION:
            return self._valkey.encryption_credential is not None
        return super().supports_feature(feature)

    async def _make_codec(self) -> Codec:
        """Also where nothing is compressed: values that were before, under other settings, are read."""
        own, name = self._valkey, self._valkey.encryption_credential
        secret: Secret | None = None
        if name is not None:
            secret = await self._secrets.secret(name)
            self._unwatch = self._secrets.watch(name, self._rotate)
        return Codec(own.compression, own.compression_min_bytes, secret, randomness.token_bytes)

    async def _rotate(self, secret: Secret) -> None:
        """Encrypt with another key from now on; the codec still opens what the earlier ones encrypted."""
        assert self._codec is not None
        self._codec.rotate(secret)
