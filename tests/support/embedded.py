# SPDX-License-Identifier: Apache-2.0
"""The embedded store on a file of the test's own.

Tests import the fixtures, and ask for them as `path` and `store`.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.embedded import EmbeddedAdapter
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.settings import EmbeddedSettings

SLOW = Limit.of("slow", "100/h", "100")


def adapter(path: Path, max_values_mb: int = 64) -> EmbeddedAdapter:
    return EmbeddedAdapter(EmbeddedSettings(path=path, max_values_mb=max_values_mb), "edge", StaticBook())


@pytest.fixture(name="path")
def embedded_path(tmp_path: Path) -> Path:
    return tmp_path / "sub" / "store.db"


@pytest_asyncio.fixture(name="store")
async def embedded_store(path: Path) -> AsyncIterator[EmbeddedAdapter]:
    async with adapter(path) as started:
        yield started
