# SPDX-License-Identifier: Apache-2.0
"""Under whose name an appliance works: its own, or as a standby of another. Pure; a row of the state."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from valkyrie.control.config import Settings

Kind = Literal["own", "follower", "successor"]
KINDS = ("own", "follower", "successor")


@dataclass(frozen=True)
class Role:
    """`follower`: its policy is what `name` keeps in the store, and it writes nothing there. `successor`: it
    has taken over and writes as `name`. `after_s`: a follower takes over when the other has been silent for
    so long; None: when told to. `known`: a follower has had the other's policy.
    """

    kind: Kind = "own"
    name: str = ""
    after_s: float | None = None
    known: bool = False

    @property
    def follows(self) -> bool:
        return self.kind == "follower"

    def text(self) -> str:
        return json.dumps(asdict(self))


def role_in(text: str) -> Role:
    """Raises ValueError for what `text()` did not write."""
    try:
        role = Role(**json.loads(text))
    except TypeError as error:
        raise ValueError(f"no role: {text[:80]!r}") from error
    if role.kind not in KINDS or (role.kind != "own" and not role.name):
        raise ValueError(f"no role: {text[:80]!r}")
    return role


def named(settings: Settings, role: Role) -> Settings:
    """The settings with the name in the stores that goes with the role."""
    if role.kind != "successor":
        return settings
    return settings.model_copy(update={"store": settings.store.model_copy(update={"name": role.name})})
