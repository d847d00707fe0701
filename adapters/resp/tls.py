# SPDX-License-Identifier: Apache-2.0
"""One TLS context for all connections of a store, made anew when a file of it changes."""

from __future__ import annotations

import ssl
from pathlib import Path

from valkyrie.adapters.errors import StoreConfigurationError
from valkyrie.adapters.settings import TlsSettings

Stamp = tuple[tuple[int, int, int, int], ...]


class TlsMaterial:
    """Drivers would build a context per connection (10 ms and 1 MB each) and trust the system's authorities
    besides `ca`. Connections that are open keep the material that they began with.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._stamp: Stamp | None = None
        self._context: ssl.SSLContext | None = None

    @property
    def server_name(self) -> str | None:
        return self._settings.server_name

    @property
    def hint(self) -> str:
        """For a server that hangs up on the greeting: its alert may have been overtaken by that."""
        return (
            "" if self._settings.certificate else "it may ask for a client certificate: set tls.certificate"
        )

    def context(self) -> ssl.SSLContext:
        """The context for the next connection. While a changed file cannot be used, as when it is half
        written, the earlier context serves; without one StoreConfigurationError names the file.
        """
        try:
            stamp = self._stamp_now()
            if self._context is None or stamp != self._stamp:
                self._context = self._build()
                self._stamp = stamp
        except (OSError, ssl.SSLError) as error:
            if self._context is None:
                raise self._unusable(error) from error
        return self._context

    def _files(self) -> tuple[Path, ...]:
        own = self._settings
        return tuple(path for path in (own.ca, own.certificate, own.private_key) if path is not None)

    def _stamp_now(self) -> Stamp:
        found = [path.stat() for path in self._files()]
        return tuple((at.st_dev, at.st_ino, at.st_mtime_ns, at.st_size) for at in found)

    def _build(self) -> ssl.SSLContext:
        own = self._settings
        context = ssl.create_default_context(cafile=None if own.ca is None else str(own.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if own.certificate is not None:
            # An encrypted key would have OpenSSL ask at the terminal: an empty password fails instead.
            context.load_cert_chain(str(own.certificate), str(own.private_key), password="")
        return context

    def _unusable(self, error: Exception) -> StoreConfigurationError:
        names = ", ".join(str(path) for path in self._files())
        return StoreConfigurationError(
            f"the TLS files cannot be used ({names}): {error}", "see `store.*.tls`"
        )
