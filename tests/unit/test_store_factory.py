# SPDX-License-Identifier: Apache-2.0
"""Stores by name: what is loaded when, what is refused; and the example of the documents runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.ctl import ROOT, environment
from support.memory_store import MemoryStore, Server
from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.errors import StoreConfigurationError
from valkyrie.adapters.factory import REGISTRY, Around, StoreFactory
from valkyrie.adapters.secrets import NoSecrets
from valkyrie.adapters.settings import StoreSettings

AROUND = Around("edge", StaticBook(), NoSecrets(), Path("/nowhere"))


def run(code: str, **variables: str) -> str:
    """What a fresh interpreter prints."""
    made = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment(Path("/nowhere")), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


def test_an_unknown_store_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(StoreConfigurationError, match="embedded, redis, valkey, yggdrasil"):
        StoreFactory().create("memcached", StoreSettings(), AROUND)


def test_a_registry_may_name_further_stores() -> None:
    factory = StoreFactory(
        {**REGISTRY, "memory": lambda settings, around: MemoryStore(Server("m"), around.book)}
    )
    assert factory.create("memory", StoreSettings(), AROUND).backend_name == "m"


@pytest.mark.parametrize("backend", ["redis", "valkey", "embedded"])
def test_each_store_of_the_settings_is_made(backend: str) -> None:
    assert StoreFactory().create(backend, StoreSettings(), AROUND).backend_name == backend


def test_a_driver_that_is_not_installed_is_named() -> None:
    def missing(settings: StoreSettings, around: Around) -> Any:
        raise ModuleNotFoundError("No module named 'valkey'", name="valkey")

    with pytest.raises(StoreConfigurationError, match="pip install valkey"):
        StoreFactory({"valkey": missing}).create("valkey", StoreSettings(), AROUND)


def test_drivers_are_loaded_only_for_their_store() -> None:
    code = """
import sys
from pathlib import Path
from valkyrie.adapters.books import StaticBook
from valkyrie.adapters.factory import Around, StoreFactory
from valkyrie.adapters.secrets import NoSecrets
from valkyrie.adapters.settings import StoreSettings
around = Around("edge", StaticBook(), NoSecrets(), Path("/nowhere"))
StoreFactory().chain(StoreSettings(), around)
StoreFactory().create("embedded", StoreSettings(), around)
print(*[name for name in ("redis", "valkey", "bcc") if name in sys.modules])
StoreFactory().create("redis", StoreSettings(), around)
print(*[name for name in ("redis", "valkey", "bcc") if name in sys.modules])
"""
    assert run(code).splitlines() == ["", "redis"]


def test_the_public_names_are_all_there_and_cost_the_command_line_nothing() -> None:
    code = """
import sys
import valkyrie.adapters as adapters
print("pydantic" in sys.modules)
print(*[getattr(adapters, name).__name__ for name in adapters.__all__])
"""
    first, names = run(code).splitlines()
    assert first == "False"
    assert names == "Decision Feature Limit Request StaticSecrets StoreAdapter open_store"


def test_the_example_of_the_documents_limits(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "stores.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    settings = tmp_path / "valkyrie.yaml"
    settings.write_text(f"store: {{embedded: {{path: {tmp_path}/store.db}}}}\nstate_dir: {tmp_path}\n")
    code = example + "\nimport asyncio\nprint([asyncio.run(may_log_in('u')) for _ in range(4)])\n"
    assert run(code, VALKYRIE_CONFIG=str(settings)) == "[True, True, True, False]\n"
