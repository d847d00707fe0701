# SPDX-License-Identifier: Apache-2.0
"""As whom connections authenticate."""

from __future__ import annotations

from valkyrie.adapters.secrets import Secret


class Login:
    """User and the secret in force; none: no AUTH is sent. The drivers never get to hold the secret."""

    __slots__ = ("secret", "username")

    def __init__(self, username: str | None, secret: Secret | None) -> None:
        self.username = username
        self.secret = secret

    def __repr__(self) -> str:
        return f"Login({self.username!r})"

    def command(self) -> tuple[str | bytes, ...] | None:
        """AUTH with its words, None if there is no secret."""
        if self.secret is None:
            return None
        password = self.secret.reveal()
        return ("AUTH", password) if self.username is None else ("AUTH", self.username, password)
