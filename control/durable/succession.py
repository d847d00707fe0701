# SPDX-License-Identifier: Apache-2.0
"""When a follower may take over: what it has seen of the active appliance. Pure; time is passed in.

Silence counts only while the follower itself sees the store. After the store was away, each active appliance
looks silent for as long: it gets the whole time again to be heard of.
"""

from __future__ import annotations

from typing import Literal

from valkyrie.adapters.durable import Owner
from valkyrie.control.durable.role import Role

Verdict = Literal["wait", "claim", "finish"]


class Watch:
    """What one follower knows of one active appliance. `token` is the follower's own."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._owner: Owner | None = None
        self._since: float | None = None  # the store is seen without a break since
        self._free_since: float | None = None  # and the name is nobody's since

    @property
    def owner(self) -> Owner | None:
        """As last seen; None too when the name is nobody's, or the store is away."""
        return self._owner

    @property
    def sees(self) -> bool:
        return self._since is not None

    def saw(self, owner: Owner | None, now: float) -> None:
        """The store answered at `now`, in seconds of any steady clock."""
        if self._since is None:
            self._since = now
        if owner is not None:
            self._free_since = None
        elif self._free_since is None:
            self._free_since = now
        self._owner = owner

    def lost(self) -> None:
        """The store did not answer."""
        self._owner = self._since = self._free_since = None

    def silent_s(self, now: float) -> float:
        """For how long the other has been silent for certain."""
        if self._since is None:
            return 0.0
        seen = now - self._since
        if self._free_since is not None:
            return min(seen, now - self._free_since)
        return min(seen, self._owner.silent_s) if self._owner is not None else 0.0

    def verdict(self, role: Role, now: float) -> Verdict:
        """`finish`: the name is this follower's already, by a takeover that was cut short."""
        if self._since is None or not role.follows:
            return "wait"
        if self._owner is not None and self._owner.token == self._token:
            return "finish"
        if role.after_s is None or not role.known:
            return "wait"
        return "claim" if self.silent_s(now) >= role.after_s else "wait"
