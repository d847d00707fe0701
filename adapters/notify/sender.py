# SPDX-License-Identifier: Apache-2.0
"""What the senders have in common: their credentials, and an answer that people can be shown."""

from __future__ import annotations

import re
import ssl
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from valkyrie.adapters.errors import StoreError
from valkyrie.adapters.notify.kinds import MIN_KEY_BYTES, AdapterBase, NotifyTls
from valkyrie.adapters.notify.message import Message, NotifyError
from valkyrie.adapters.notify.text import told
from valkyrie.adapters.secrets import Secret, Secrets

MIN_PART = 8

S = TypeVar("S", bound=AdapterBase)


class Revealed:
    """Credentials as they are needed, and texts of others without them."""

    def __init__(self, secrets: Secrets) -> None:
        self.secrets = secrets
        self._revealed: dict[str, Secret] = {}

    async def secret(self, name: str, least: int = 1) -> bytes:
        """The credential in force. Without one a message waits: NotifyError, not permanent."""
        try:
            found = await self.secrets.secret(name)
        except StoreError as error:
            raise NotifyError(error.what, error.hint) from None
        self._revealed[name] = found
        value = found.reveal()
        if len(value) < least:
            raise NotifyError(
                f"credential {name} has less than {least} bytes",
                f"run: openssl rand -base64 32 | valkyrie-ctl creds set {name} --stdin",
            )
        return value

    def told(self, text: str | bytes) -> str:
        """What a service said, for people, without the secrets that it may quote."""
        hidden = {part for one in self._revealed.values() for part in _parts(one.reveal())}
        return told(text, sorted(hidden, key=len, reverse=True))

    async def key(self, name: str) -> bytes:
        """A key to sign with."""
        return await self.secret(name, MIN_KEY_BYTES)

    async def text(self, name: str) -> str:
        """A credential that goes into a header or a URL: one line of ASCII."""
        try:
            found = (await self.secret(name)).decode("ascii")
        except UnicodeDecodeError:
            found = "\n"
        if not found.isprintable() or " " in found:
            raise NotifyError(
                f"credential {name} is not one word of ASCII", f"run: valkyrie-ctl creds set {name}"
            )
        return found


class Sender(Revealed, ABC, Generic[S]):
    """A Notifier. `deliver` is `send` that tells what the service answered."""

    def __init__(self, name: str, settings: S, secrets: Secrets, node: str) -> None:
        super().__init__(secrets)
        self.name = name
        self.settings = settings
        self.node = node

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    async def start(self) -> None:
        """Called once before the first message; does not wait for the service."""

    async def send(self, message: Message) -> None:
        await self.deliver(message)

    @abstractmethod
    async def deliver(self, message: Message) -> str:
        """Deliver, within `settings.timeout_seconds`; the service's answer. Raises NotifyError."""

    async def close(self) -> None:
        """Let go of connections. Again: nothing."""

    def status(self) -> dict[str, Any]:
        """What only this kind knows, for people."""
        return {}


def _parts(value: bytes) -> list[bytes]:
    """A secret, and the pieces of one that is a URL: of those a service may quote some."""
    return [value, *(part for part in re.split(rb"[/?&=]", value) if len(part) >= MIN_PART)]


class Tls:
    """The TLS context of a sender, made anew when a file of it changes."""

    def __init__(self, settings: NotifyTls) -> None:
        from valkyrie.adapters.resp.tls import TlsMaterial  # noqa: PLC0415 - only a sender that runs needs it
        from valkyrie.adapters.settings import TlsSettings  # noqa: PLC0415

        self._own = settings
        self._material = TlsMaterial(TlsSettings(**settings.model_dump()))

    def context(self) -> ssl.SSLContext:
        """Raises NotifyError when a file cannot be used; it may be half written, so it is tried again."""
        try:
            return self._material.context()
        except StoreError as error:
            raise NotifyError(error.what, "see `tls` of this adapter") from None

    @property
    def hint(self) -> str:
        return "" if self._own.certificate else "it may ask for a client certificate: set tls.certificate"
