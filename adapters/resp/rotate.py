# SPDX-License-Identifier: Apache-2.0
"""A new password for connections that are open: AUTH on each, none is dropped."""

from __future__ import annotations

import asyncio

from valkyrie.adapters.errors import AuthenticationFailed, StoreError, StoreTimeout
from valkyrie.adapters.resp.login import Login
from valkyrie.adapters.resp.topology import Topology
from valkyrie.adapters.secrets import Secret, Secrets, Unwatch

PATIENCE = 2  # timeouts: a call under way may take one, and then AUTH one


class Rotation:
    """Awaited by Secrets with each new value (`watch`)."""

    def __init__(self, login: Login, topology: Topology, timeout_s: float) -> None:
        self._login = login
        self._topology = topology
        self._timeout_s = timeout_s
        self._one_at_a_time = asyncio.Lock()

    def watch(self, secrets: Secrets, credential: str | None) -> Unwatch:
        return (lambda: None) if credential is None else secrets.watch(credential, self.put)

    async def put(self, secret: Secret) -> None:
        """Authenticate everywhere, then use it for new connections too. Until the server has accepted it,
        those use the earlier one: both are valid at once while a password is rotated.

        Raises AuthenticationFailed: the earlier one stays in use. Raises another StoreError when not all
        connections could be asked: the new one is in use, untried, until `put` is called with the earlier.
        """
        async with self._one_at_a_time:
            login = Login(self._login.username, secret)
            try:
                async with asyncio.timeout(self._timeout_s * PATIENCE):
                    await self._everywhere(login)
                    self._adopt(secret)
                    await self._everywhere(login)  # connections that came about meanwhile
            except AuthenticationFailed:
                raise
            except TimeoutError:
                self._adopt(secret)
                raise StoreTimeout("not every connection could authenticate anew in time") from None
            except StoreError:
                self._adopt(secret)
                raise

    def _adopt(self, secret: Secret) -> None:
        self._login.secret = secret
        for node in self._topology.nodes():
            node.breaker.forgive()

    async def _everywhere(self, login: Login) -> None:
        nodes = list(self._topology.nodes())
        done = await asyncio.gather(*(n.pool.authenticate(login) for n in nodes), return_exceptions=True)
        failures = [failure for failure in done if failure is not None]
        if failures:
            raise min(failures, key=lambda one: not isinstance(one, AuthenticationFailed))
