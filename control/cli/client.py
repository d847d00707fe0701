# SPDX-License-Identifier: Apache-2.0
"""The API of the daemon over its Unix socket, with nothing but the standard library (start-up time)."""

import http.client
import json
import os
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from valkyrie.control.errors import InvalidInput, PermissionRefused, Unavailable, ValkyrieError

# The largest answers are exports of 100,000 overrides, around 10 MB.
MAX_ANSWER = 256 * 1024 * 1024
MAX_EVENT_LINE = 1024 * 1024
TIMEOUT = 30.0
TRACEPARENT = 55  # characters that W3C gives it
START = "start it with `systemctl start valkyried`"


class UnixConnection(http.client.HTTPConnection):
    """HTTP/1.1 on a Unix socket."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def error_classes() -> dict[str, type[ValkyrieError]]:
    """Stable API word -> error class, the base class for words that this version does not know."""
    classes: list[type[ValkyrieError]] = [ValkyrieError]
    for known in classes:
        classes.extend(known.__subclasses__())
    return {known.code: known for known in reversed(classes)}


def error_from(status: int, body: bytes) -> ValkyrieError:
    """The error that an answer of 400 and above tells of; its class gives the exit code."""
    try:
        told = json.loads(body)["error"]
        code, what = str(told["code"]), str(told["what"])
        hint, where = str(told.get("hint") or ""), str(told.get("where") or "")
    except (ValueError, TypeError, KeyError, AttributeError):
        return ValkyrieError(
            f"valkyried answered HTTP {status} without saying why",
            "journalctl -u valkyried shows what happened",
        )
    if code.startswith("store"):
        pass  # so that its classes are known
    kind = error_classes().get(code, ValkyrieError)
    if issubclass(kind, InvalidInput):
        return kind(what, hint, where=where)
    return kind(what, hint)


def told(connection: UnixConnection, answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The objects of an event stream as they come; ends when the other side does."""
    try:
        while line := answer.readline(MAX_EVENT_LINE):
            if line.startswith(b"data:"):
                yield json.loads(line[len(b"data:") :])
    except (OSError, http.client.HTTPException):
        return
    finally:
        connection.close()


class Client:
    """Requests to the daemon at a socket path; every method raises ValkyrieError and its kin only."""

    def __init__(self, path: str, timeout: float = TIMEOUT) -> None:
        self.path = path
        self.timeout = timeout

    def get(self, path: str, **query: object) -> Any:
        return self._call("GET", path, query)

    def put(self, path: str, body: object) -> Any:
        return self._call("PUT", path, {}, body)

    def post(self, path: str, body: object = None) -> Any:
        return self._call("POST", path, {}, {} if body is None else body)

    def delete(self, path: str, **query: object) -> Any:
        return self._call("DELETE", path, query)

    def stream(self, path: str, body: object = None) -> Iterator[dict[str, Any]]:
        """The JSON objects of an event stream until the daemon ends it; Unavailable without a daemon. With a
        body, it is asked for by POST.
        """
        connection = UnixConnection(self.path, self.timeout)
        try:
            answer = self._send(connection, "GET" if body is None else "POST", path, body)
        except ValkyrieError:
            connection.close()
            raise
        if connection.sock is not None:
            connection.sock.settimeout(None)
        return told(connection, answer)

    def _call(self, method: str, path: str, query: dict[str, object], body: object = None) -> Any:
        given = {name: str(value) for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        connection = UnixConnection(self.path, self.timeout)
        try:
            answer = self._send(connection, method, target, body)
            text = answer.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            raise self._unavailable(error) from error
        finally:
            connection.close()
        if len(text) > MAX_ANSWER:
            raise Unavailable(f"the answer to {method} {path} is longer than {MAX_ANSWER} bytes")
        try:
            return json.loads(text) if text else {}
        except ValueError as error:
            raise Unavailable(
                f"what answers at {self.path} does not speak JSON", "is this the socket of valkyried?"
            ) from error

    def _send(
        self, connection: UnixConnection, method: str, target: str, body: object
    ) -> http.client.HTTPResponse:
        """The answer, its status checked and its body unread."""
        headers = {"Accept": "application/json, text/event-stream"}
        parent = os.environ.get("TRACEPARENT", "")
        if len(parent) == TRACEPARENT and parent.isascii() and parent.isprintable():
            headers["traceparent"] = parent  # of a script that is traced: the daemon's spans go beneath
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.connect()
            connection.request(method, target, payload, headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._unavailable(error) from error
        if answer.status >= 400:
            raise error_from(answer.status, answer.read(MAX_ANSWER))
        return answer

    def _unavailable(self, error: Exception) -> ValkyrieError:
        """What a failed system call on the socket means to the person at the terminal."""
        doctor = f"{START}; `valkyrie-ctl doctor` says what is missing"
        if isinstance(error, FileNotFoundError):
            return Unavailable(f"valkyried is not running: there is no socket {self.path}", doctor)
        if isinstance(error, ConnectionRefusedError):
            return Unavailable(f"valkyried is not running: nobody answers at {self.path}", doctor)
        if isinstance(error, PermissionError):
            return PermissionRefused(
                f"you may not open {self.path}",
                "use sudo, or join the group valkyrie (valkyrie-read only to look)",
            )
        if isinstance(error, TimeoutError):
            return Unavailable(f"valkyried did not answer within {self.timeout:g} s", doctor)
        return Unavailable(
            f"the connection to valkyried broke: {error!r}",
            "journalctl -u valkyried shows what happened",
        )
