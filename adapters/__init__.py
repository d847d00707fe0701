# SPDX-License-Identifier: Apache-2.0
"""Adapters to what lies outside this host. What applications use of the stores:

    from valkyrie.adapters import Limit, open_store

    async with open_store() as store:
        if (await store.try_consume("203.0.113.9", limit="web")).allowed:
            ...

Names are loaded when they are first used, so that the command line need not wait for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from valkyrie.adapters.limit import Limit
    from valkyrie.adapters.opening import open_store
    from valkyrie.adapters.secrets import StaticSecrets
    from valkyrie.adapters.store import Decision, Feature, Request, StoreAdapter

__all__ = ["Decision", "Feature", "Limit", "Request", "StaticSecrets", "StoreAdapter", "open_store"]

HOMES = {
    "Decision": "store",
    "Feature": "store",
    "Limit": "limit",
    "Request": "store",
    "StaticSecrets": "secrets",
    "StoreAdapter": "store",
    "open_store": "opening",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
