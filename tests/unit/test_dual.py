# SPDX-License-Identifier: Apache-2.0
"""The other store of a migration is told only where no living appliance owns it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from valkyrie.adapters.secrets import NoSecrets
from valkyrie.adapters.settings import StoreSettings
from valkyrie.control.durable import dual
from valkyrie.control.durable.dual import Dual
from valkyrie.control.durable.opening import Opened, make_store

OURS, THEIRS = "a" * 32, "b" * 32


class Stores:
    """Two files, and the dual store between them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.dual = Dual(self.make("primary"), lambda: self.make("secondary"), lambda: True)

    def make(self, name: str) -> Opened:
        given = {"mode": "embedded", "embedded": {"path": str(self._folder / f"{name}.db")}}
        return make_store(StoreSettings.model_validate(given), "edge", NoSecrets())

    async def own_secondary(self, token: str, *, release: bool = False) -> None:
        other = self.make("secondary")
        await other.start()
        await other.claim("other", token)
        if release:
            await other.release(token)
        await other.close()

    async def secondary_token(self) -> str | None:
        other = self.make("secondary")
        await other.start()
        owner = await other.owner()
        await other.close()
        return None if owner is None else owner.token


@pytest.fixture
async def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stores]:
    monkeypatch.setattr(dual, "PAUSE_S", 0.0)
    made = Stores(tmp_path)
    await made.dual.start()
    yield made
    await made.dual.close()


@pytest.mark.parametrize("takeover", [False, True])
async def test_a_living_owner_of_the_other_store_is_not_driven_out_and_that_is_said_once(
    stores: Stores, caplog: pytest.LogCaptureFixture, *, takeover: bool
) -> None:
    await stores.own_secondary(THEIRS)
    with caplog.at_level(logging.WARNING):
        await stores.dual.claim("us", OURS, takeover=takeover)
        await stores.dual.put_document("state", b"1", OURS)
        await stores.dual.renew(OURS)
    assert await stores.secondary_token() == THEIRS
    assert len([one for one in caplog.records if "is not told: other syncs" in one.getMessage()]) == 1


@pytest.mark.parametrize("present", ["nobody", "ourselves", "one who let go", "one who is silent"])
async def test_the_other_store_is_told_where_nobody_else_is_alive(stores: Stores, present: str) -> None:
    if present != "nobody":
        token = OURS if present == "ourselves" else THEIRS
        await stores.own_secondary(token, release=present == "one who let go")
    await stores.dual.claim("us", OURS, silent_s=0.0 if present == "one who is silent" else 10.0)
    await stores.dual.renew(OURS)
    assert await stores.secondary_token() == OURS
