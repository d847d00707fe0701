# SPDX-License-Identifier: Apache-2.0
"""How an application's process comes to its stores: settings, limits and passwords of this host."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import cast

from valkyrie.adapters.books import ApiBook, FirstBook, StoreBook
from valkyrie.adapters.durable import DurableStore
from valkyrie.adapters.errors import StoreUnavailable
from valkyrie.adapters.factory import Around, StoreFactory
from valkyrie.adapters.hybrid.events import Listener
from valkyrie.adapters.hybrid.manager import HybridStoreManager
from valkyrie.adapters.naming import appliance_of
from valkyrie.adapters.secrets import Secrets
from valkyrie.adapters.store import Feature
from valkyrie.control.config import Settings, load_settings


def open_store(
    path: Path | str | None = None, *, secrets: Secrets | None = None, listener: Listener | None = None
) -> HybridStoreManager:
    """All stores that the settings name, as one, for `async with`.

    `path` is the settings file; else $VALKYRIE_CONFIG, else /etc/valkyrie/valkyrie.yaml. `secrets` holds
    passwords that the application keeps itself (StaticSecrets); else they are those of
    `valkyrie-ctl creds`, which only root can read. Raises InvalidInput for settings that are wrong.
    """
    settings = load_settings(None if path is None else Path(path))
    made: list[HybridStoreManager] = []
    book = FirstBook([ApiBook(settings.socket), StoreBook(lambda: _durable(made[0]))])
    around = Around(
        appliance_of(settings.store.name, socket.gethostname()),
        book,
        secrets or _hosts_secrets(settings),
        settings.pin_dir,
    )
    made.append(StoreFactory().chain(settings.store, around, listener=listener))
    return made[0]


def _durable(manager: HybridStoreManager) -> DurableStore:
    """The first store of the chain that has started and keeps documents."""
    for member in manager.members:
        if member.started and member.adapter.supports_feature(Feature.DURABLE):
            return cast("DurableStore", member.adapter)
    raise StoreUnavailable(
        "valkyried is not there, and no store that keeps its limits", "start it, or give rate and burst"
    )


def _hosts_secrets(settings: Settings) -> Secrets:
    from valkyrie.control.credentials.followed import Followed  # noqa: PLC0415 - not with own secrets
    from valkyrie.control.credentials.store import CredentialStore  # noqa: PLC0415
    from valkyrie.control.credentials.vault import Vault  # noqa: PLC0415

    given = os.environ.get("CREDENTIALS_DIRECTORY")
    vault = Vault(settings.state_dir, Path(given) if given else None, os.urandom)
    return Followed(CredentialStore(vault, time.time))
