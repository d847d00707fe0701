# SPDX-License-Identifier: Apache-2.0
"""Commands that come as messages: signed, fresh, each once, few a second.

The sender signs the text of the body, so that no two spellings of one JSON value can differ in meaning:
`{"body": "...", "signature": "sha256=..."}`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from valkyrie.control.errors import InvalidInput, PermissionRefused, ValkyrieError

log = logging.getLogger(__name__)

MAX_PAYLOAD = 16 * 1024
FRESH_S = 60.0
AHEAD_S = 5.0  # that a sender's clock may be before this one's
LATEST = 1e12  # no clock is there yet
MOST_NONCES = 4096
RATE = 5.0  # a second
BURST = 20.0
WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")
NONCE = re.compile(r"[A-Za-z0-9_-]{16,64}")
FIELDS = {"node", "command", "id", "time", "nonce", "arguments"}


@dataclass(frozen=True)
class Command:
    id: str
    name: str
    arguments: dict[str, Any]


def sign(key: bytes, body: bytes) -> str:
    return "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()


def envelope(key: bytes, body: Mapping[str, Any]) -> bytes:
    """What a sender publishes."""
    text = json.dumps(body, separators=(",", ":"))
    return json.dumps({"body": text, "signature": sign(key, text.encode())}).encode()


def opened(payload: bytes, key: bytes) -> dict[str, Any]:
    """The body of an envelope whose signature is right. Raises PermissionRefused."""
    refused = PermissionRefused("a command was not signed with this node's key", "see docs/notifications.md")
    if len(payload) > MAX_PAYLOAD:
        raise refused
    try:
        outer = json.loads(payload)
        text, signature = outer["body"], outer["signature"]
        raw, given = text.encode(), signature.encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise refused from None
    if not hmac.compare_digest(sign(key, raw).encode(), given):
        raise refused
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise InvalidInput("the body of a command is no JSON object")
    return body


@dataclass
class Judge:
    """Lets a command through once. A restart forgets the nonces: hence what one before it could have let
    through is refused, and that is all up to AHEAD_S after the start. Else a nonce is kept until there are
    MOST_NONCES, whatever becomes of the clock.
    """

    node: str
    started: float  # wall seconds
    nonces: OrderedDict[str, float] = field(default_factory=OrderedDict)
    tokens: float = BURST
    filled: float = -math.inf

    def admit(self, body: dict[str, Any], word: str, now: float) -> Command:
        """Raises InvalidInput, PermissionRefused."""
        command = self._read(body, word)
        at = float(body["time"])
        self._fresh(at, now)
        while len(self.nonces) >= MOST_NONCES and abs(now - next(iter(self.nonces.values()))) > FRESH_S:
            self.nonces.popitem(last=False)
        if body["nonce"] in self.nonces:
            raise PermissionRefused("the command was sent before", "use a new nonce for each")
        self.tokens = min(BURST, self.tokens + RATE * max(0.0, now - self.filled))
        self.filled = now
        if self.tokens < 1 or len(self.nonces) >= MOST_NONCES:
            raise PermissionRefused("too many commands", f"at most {RATE:g} a second")
        self.tokens -= 1
        self.nonces[body["nonce"]] = at
        return command

    def _read(self, body: dict[str, Any], word: str) -> Command:
        if set(body) != FIELDS:
            raise InvalidInput("a command has other fields", f"it has {', '.join(sorted(FIELDS))}")
        if not isinstance(body["id"], str) or not WORD.fullmatch(body["id"]):
            raise InvalidInput("the id is not 1 to 64 letters, digits, hyphens, underscores", where="id")
        if not isinstance(body["nonce"], str) or not NONCE.fullmatch(body["nonce"]):
            raise InvalidInput(
                "the nonce is not 16 to 64 letters, digits, hyphens, underscores", where="nonce"
            )
        if body["node"] != self.node:
            raise PermissionRefused("the command is for another node", f"this one is {self.node}")
        if body["command"] != word:
            raise PermissionRefused("the command is not that of its topic")
        time = body["time"]
        if isinstance(time, bool) or not isinstance(time, int | float) or abs(time) > LATEST:
            raise InvalidInput("the time is no number of seconds since 1970", where="time")
        if not isinstance(body["arguments"], dict):
            raise InvalidInput("the arguments are no object", where="arguments")
        return Command(body["id"], word, body["arguments"])

    def _fresh(self, at: float, now: float) -> None:
        # Written so that NaN is refused.
        if not now - FRESH_S <= at <= now + AHEAD_S:
            raise PermissionRefused(
                f"the command is not of these {FRESH_S:g} s, or more than {AHEAD_S:g} s ahead",
                "are both clocks right?",
            )
        if not at > self.started + AHEAD_S:
            raise PermissionRefused(
                f"the command is older than this process or of its first {AHEAD_S:g} s", "send it again"
            )


Operation = Callable[[str, dict[str, Any]], Awaitable[Any]]
"""Carries a command out for a sender's name; raises ValkyrieError."""


class Commander:
    """What the senders call. Unsigned messages are counted and not answered."""

    def __init__(
        self,
        adapter: str,
        judge: Judge,
        key: Callable[[], Awaitable[bytes]],
        operations: Mapping[str, Operation],
        wall: Callable[[], float],
    ) -> None:
        self.done = 0
        self.refused = 0
        self.last_refusal = ""
        self._adapter = adapter
        self._judge = judge
        self._key = key
        self._operations = operations
        self._wall = wall

    async def __call__(self, word: str, payload: bytes) -> tuple[str, bytes] | None:
        try:
            body = opened(payload, await self._key())
        except ValkyrieError as error:
            self._refuse(error)
            return None
        number = body.get("id")
        if not isinstance(number, str) or not WORD.fullmatch(number):
            self._refuse(InvalidInput("a command without an id"))
            return None
        try:
            command = self._judge.admit(body, word, self._wall())
        except PermissionRefused as error:
            # No answer: it could pass for that to the command which was replayed.
            self._refuse(error)
            return None
        except InvalidInput as error:
            self._refuse(error)
            return _answer(number, error=error)
        try:
            result = await self._operation(word)(self._adapter, command.arguments)
        except ValkyrieError as error:
            self._refuse(error)
            return _answer(number, error=error)
        except Exception as error:
            log.exception("the command %s failed", word[:40])
            return _answer(number, error=ValkyrieError(f"a bug: {type(error).__name__}", "see the log"))
        self.done += 1
        return _answer(number, result=result)

    def _operation(self, word: str) -> Operation:
        operation = self._operations.get(word)
        if operation is None:
            raise InvalidInput(f"no command {word[:40]!r}", f"known: {', '.join(self._operations)}")
        return operation

    def _refuse(self, error: ValkyrieError) -> None:
        if not self.refused:
            log.warning("commands by %s: refused one: %s", self._adapter, error)
        self.refused += 1
        self.last_refusal = error.what

    def status(self) -> dict[str, Any]:
        return {"done": self.done, "refused": self.refused, "last_refusal": self.last_refusal}


def _answer(number: str, *, result: Any = None, error: ValkyrieError | None = None) -> tuple[str, bytes]:
    answer: dict[str, Any] = {"id": number, "ok": error is None}
    if error is None:
        answer["result"] = result
    else:
        answer["error"] = {"code": error.code, "what": error.what, "hint": error.hint}
    return number, json.dumps(answer, default=str).encode()
