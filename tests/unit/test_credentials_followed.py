# SPDX-License-Identifier: Apache-2.0
"""Credentials that another process changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from valkyrie.adapters.errors import AuthenticationFailed, StoreConfigurationError
from valkyrie.adapters.secrets import Secret, StaticSecrets
from valkyrie.control.credentials.followed import Followed


class Watching:
    """A watcher that refuses the first `refusals` offers."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.offered: list[bytes] = []

    async def put(self, secret: Secret) -> None:
        self.offered.append(secret.reveal())
        if len(self.offered) <= self.refusals:
            raise AuthenticationFailed("refused", "rotate again")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - waits for whatever it is given
            await asyncio.sleep(0.001)


async def test_a_new_version_is_offered_once_and_an_old_one_never() -> None:
    vault = StaticSecrets({"a": "one"})
    followed, watching = Followed(vault, poll_s=0.001), Watching()
    assert (await followed.secret("a")).reveal() == b"one"
    unwatch = followed.watch("a", watching.put)
    await asyncio.sleep(0.02)
    assert watching.offered == []
    await vault.replace("a", "two")
    await until(lambda: bool(watching.offered))
    await asyncio.sleep(0.02)
    assert watching.offered == [b"two"]
    unwatch()
    await vault.replace("a", "three")
    await asyncio.sleep(0.02)
    assert watching.offered == [b"two"]


async def test_a_value_that_is_refused_is_offered_again_ever_more_seldom() -> None:
    vault = StaticSecrets({"a": "one"})
    followed, watching = Followed(vault, poll_s=0.001), Watching(refusals=3)
    await followed.secret("a")
    unwatch = followed.watch("a", watching.put)
    await vault.replace("a", "two")
    await until(lambda: len(watching.offered) == 4)
    await asyncio.sleep(0.02)
    assert watching.offered == [b"two"] * 4
    unwatch()


async def test_a_credential_that_cannot_be_read_for_a_while_is_followed_again() -> None:
    class Sometimes(StaticSecrets):
        away = False

        async def secret(self, name: str) -> Secret:
            if self.away:
                raise StoreConfigurationError("cannot read credentials.json")
            return await super().secret(name)

    vault = Sometimes({"a": "one"})
    followed, watching = Followed(vault, poll_s=0.001), Watching()
    await followed.secret("a")
    unwatch = followed.watch("a", watching.put)
    vault.away = True
    await asyncio.sleep(0.02)
    vault.away = False
    await vault.replace("a", "two")
    await until(lambda: watching.offered == [b"two"])
    unwatch()
