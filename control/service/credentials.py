# SPDX-License-Identifier: Apache-2.0
"""Operations on credentials. Names are audited and told; values go in and never come out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from valkyrie.control.audit import Actor
from valkyrie.control.credentials.keyring import RandomBytes, text_key_id
from valkyrie.control.credentials.store import CredentialStore
from valkyrie.control.credentials.vault import Vault
from valkyrie.control.credentials.words import checked_name, checked_value
from valkyrie.control.errors import Conflict, ValkyrieError
from valkyrie.control.service.core import Core

log = logging.getLogger(__name__)


class Credentials:
    """`store` is what the adapters of this process get as `Secrets`.

    `as_read` are the settings as last read, of which some wait for the next start: what they name is in
    use as well as what those in force name. `users` give settings that are changed while the daemon runs.
    `on_set` is called when a credential was set.
    """

    def __init__(self, core: Core, random_bytes: RandomBytes) -> None:
        given = os.environ.get("CREDENTIALS_DIRECTORY")
        self._core = core
        self.as_read: BaseModel = core.settings
        self.users: list[Callable[[], BaseModel]] = []
        self.on_set: list[Callable[[], None]] = []
        self.store = CredentialStore(
            Vault(core.settings.state_dir, Path(given) if given else None, random_bytes), core.clock.wall
        )

    async def start(self) -> None:
        """Finish a change of the master key that was cut off. Trouble is logged: no packet waits for this."""
        try:
            if await self.store.settle(self._kept()):
                log.info("credentials are encrypted with the current master key")
        except ValkyrieError as error:
            log.error("credentials cannot be read: %s", error)  # noqa: TRY400 - no bug, so no traceback

    def listing(self) -> dict[str, Any]:
        """Raises StateError."""
        now = self._core.clock.wall()
        used = users_of(*self._settings())
        records = self.store.vault.records()
        return {
            "credentials": [
                {
                    "name": name,
                    "version": record.newest.number,
                    "created": record.newest.created,
                    "age_s": max(0.0, now - record.newest.created),
                    "used_by": used.get(name, []),
                }
                for name, record in sorted(records.items())
            ],
            "missing": sorted(used.keys() - records.keys()),
            "master_keys": list(self.store.vault.key_ids()),
        }

    async def put(self, actor: Actor, name: str, value: bytes) -> dict[str, Any]:
        """Raises InvalidInput, Conflict, StateError."""
        checked_name(name)
        checked_value(value)
        await self._note(actor, "creds.set", name)
        made, complaints = await self.store.set(name, value)
        for tell in self.on_set:
            tell()
        return {"name": name, "version": made.version, "complaints": complaints}

    async def rotate(self, actor: Actor, name: str, value: bytes) -> dict[str, Any]:
        """Raises InvalidInput, NotFound, Conflict, Unavailable, StateError."""
        checked_name(name)
        checked_value(value)
        await self._note(actor, "creds.rotate", name)
        made = await self.store.rotate(name, value)
        return {"name": name, "version": made.version, "taken_by": self.store.watched(name)}

    async def delete(self, actor: Actor, name: str, *, force: bool) -> dict[str, Any]:
        """Raises InvalidInput, NotFound, StateError, and Conflict while settings name it."""
        checked_name(name)
        users = users_of(*self._settings()).get(name, [])
        if users and not force:
            raise Conflict(
                f"the settings use credential {name}: {', '.join(users)}",
                "name another first, in valkyrie.yaml or where that was done by `valkyrie-ctl notify` or "
                "`telemetry`; or delete it with --force",
            )
        await self._note(actor, "creds.delete", name)
        await self.store.delete(name)
        return {"deleted": name}

    async def rekey(self, actor: Actor) -> dict[str, Any]:
        """Raises Conflict, StateError."""
        await self._note(actor, "creds.rekey", "")
        current = await self.store.rekey(self._kept())
        stale = [place for place, key in encrypted_in(self._core.settings, self.as_read) if key != current]
        return {"master_key": current, "stale": stale}

    async def encrypt(self, actor: Actor, value: bytes) -> dict[str, Any]:
        """Text for `password_encrypted`. Raises InvalidInput, StateError."""
        checked_value(value)
        await self._note(actor, "creds.encrypt", "")
        return {"password_encrypted": await self.store.encrypt(value)}

    def _settings(self) -> list[BaseModel]:
        return [self._core.settings, self.as_read, *(give() for give in self.users)]

    def _kept(self) -> set[str]:
        return {key for _, key in encrypted_in(self._core.settings, self.as_read)}

    async def _note(self, actor: Actor, action: str, target: str) -> None:
        # Before the change: what cannot be written down is not done.
        await self._core.in_turn(lambda: self._core.note(actor, action, target, {}))


def users_of(*settings: BaseModel) -> dict[str, list[str]]:
    """Which settings name which credential."""
    used: dict[str, list[str]] = {}
    for place, name, value in _all(settings):
        if name == "credential" or name.endswith("_credential"):
            used.setdefault(value, []).append(place)
    return used


def encrypted_in(*settings: BaseModel) -> list[tuple[str, str]]:
    """Every `password_encrypted` in the settings, as place and id of its master key."""
    found = ((place, text_key_id(value)) for place, name, value in _all(settings) if "_encrypted" in name)
    return [(place, key) for place, key in found if key is not None]


def _all(settings: tuple[BaseModel, ...]) -> dict[tuple[str, str, str], None]:
    """Every text in any of the settings, once."""
    return dict.fromkeys(word for one in settings for word in _words(one))


def _words(model: BaseModel, before: str = "") -> Iterator[tuple[str, str, str]]:
    """Every text in the settings: its place, its field, itself."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _words(value, f"{before}{name}.")
        elif isinstance(value, dict):
            for inner, one in value.items():
                if isinstance(one, BaseModel):
                    yield from _words(one, f"{before}{name}.{inner}.")
        elif isinstance(value, str):
            yield f"{before}{name}", name, value
