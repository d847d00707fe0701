# SPDX-License-Identifier: Apache-2.0
"""A circuit breaker: a server that fails again and again is left alone for a while. No I/O in here."""

from __future__ import annotations

from collections.abc import Callable

from valkyrie.adapters.errors import AuthenticationFailed, StoreError, StoreUnavailable


class Breaker:
    """Opens after `failures` in a row, and at once when the server refuses the credentials. After `seconds`
    it lets exactly one call through, the probe: its success closes the breaker, its failure opens it again.

    Each `enter` that does not raise must be followed by `succeeded`, `failed` or `gave_up`.
    """

    def __init__(self, where: str, failures: int, seconds: float, clock: Callable[[], float]) -> None:
        self._where = where
        self._failures = failures
        self._seconds = seconds
        self._clock = clock
        self._in_a_row = 0
        self._until: float | None = None  # None: closed
        self._refusal: AuthenticationFailed | None = None
        self._probing = False
        self.opened = 0  # how often, since start

    @property
    def open(self) -> bool:
        return self._until is not None

    @property
    def admits(self) -> bool:
        """Whether `enter` would let a call through now."""
        return self._until is None or (self._until <= self._clock() and not self._probing)

    @property
    def suspicious(self) -> bool:
        """Whether the last call failed."""
        return self._in_a_row > 0 or self.open

    def enter(self) -> None:
        """Ask to make a call. Raises StoreUnavailable, or the AuthenticationFailed that opened it."""
        self.check()
        self._probing = self._until is not None

    def check(self) -> None:
        """Raise what `enter` would raise now, and claim nothing."""
        if self.admits or self._until is None:
            return
        left = self._until - self._clock()
        if self._refusal is not None:
            raise AuthenticationFailed(self._refusal.what, self._refusal.hint)
        raise StoreUnavailable(
            f"{self._where} failed {self._in_a_row} times in a row",
            f"the next try is in {max(left, 0.0):.1f} s" if left > 0 else "a call is just trying it",
        )

    def succeeded(self) -> None:
        """The server answered, whatever it said."""
        self.reset()

    def failed(self, error: StoreError) -> None:
        """The server did not answer, or refused the credentials."""
        refused = isinstance(error, AuthenticationFailed)
        if isinstance(error, AuthenticationFailed):
            self._refusal = error
        else:  # a refusal is an answer: the server is well
            self._in_a_row += 1
            self._refusal = None if self._probing else self._refusal
        if refused or self._probing or self._in_a_row >= self._failures:
            self.opened += self._until is None
            self._until = self._clock() + self._seconds
        self._probing = False

    def gave_up(self) -> None:
        """The caller went away before anything was known: the next one may probe."""
        self._probing = False

    def forgive(self) -> None:
        """New credentials are there: what was refused may be tried again."""
        if self._refusal is not None:
            self.reset()

    def reset(self) -> None:
        """Close."""
        self._in_a_row = 0
        self._until = None
        self._refusal = None
        self._probing = False
