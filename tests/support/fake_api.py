# SPDX-License-Identifier: Apache-2.0
"""The API of valkyried in memory, on a real Unix socket: unknown routes, queries and bodies are refused."""

import json
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from valkyrie.control.counted import COUNTERS

TEXT, BOOL, MAYBE, LIST, DICT = (str,), (bool,), (str, type(None)), (list,), (dict,)
Shape = dict[str, tuple[tuple[type, ...], bool]]  # field -> types, whether it must be there

LIMIT: Shape = {
    "match": (TEXT, False),
    "key": (TEXT, True),
    "rate": (TEXT, True),
    "burst": (MAYBE, False),
    "action": (TEXT, False),
    "ban_for": (MAYBE, False),
    "measure": (MAYBE, False),
}
GUARD: Shape = {"prefix": (TEXT, True), "for": (MAYBE, False), "note": (TEXT, False)}
ATTACH: Shape = {
    "mode": (TEXT, False),
    "confirm": (MAYBE, False),
    "replace": (BOOL, False),
    "protect": (LIST, False),
}
CONSUME: Shape = {
    "key": (TEXT, True),
    "n": ((int,), False),
    "limit": (MAYBE, False),
    "rate": (MAYBE, False),
    "burst": (MAYBE, False),
}
FOLLOW: Shape = {"name": (TEXT, True), "after": (MAYBE, False), "wait": (BOOL, False)}
ADAPTER: Shape = {"settings": (DICT, True), "severity": (TEXT, False), "tags": (DICT, False)}


class RefusedError(Exception):
    def __init__(self, status: int, code: str, what: str, hint: str = "", where: str = "") -> None:
        super().__init__(what)
        self.status = status
        self.error = {"code": code, "what": what, "hint": hint, "where": where}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Route:
    method: str
    pattern: str
    handler: str
    query: tuple[str, ...] = ()
    body: Shape | None = None


ROUTES = (
    Route("GET", "/v1/status", "status"),
    Route("GET", "/v1/doctor", "doctor"),
    Route("GET", "/v1/limits", "list_limits"),
    Route("GET", "/v1/limits/([^/]+)", "show_limit"),
    Route("PUT", "/v1/limits/([^/]+)", "put_limit", body=LIMIT),
    Route("DELETE", "/v1/limits/([^/]+)", "delete_limit"),
    Route("GET", "/v1/limits/([^/]+)/overrides", "list_overrides"),
    Route("PUT", "/v1/limits/([^/]+)/overrides", "put_overrides", body={"overrides": (LIST, True)}),
    Route("DELETE", "/v1/limits/([^/]+)/overrides", "delete_override", ("prefix",)),
    Route("POST", "/v1/(apply|diff)", "apply", body={"document": (DICT, True)}),
    Route("GET", "/v1/export", "export"),
    Route("POST", "/v1/explain", "explain", body={"packet": (TEXT, True)}),
    Route("GET", "/v1/(exempt|ban)", "list_guards"),
    Route("PUT", "/v1/(exempt|ban)", "put_guard", body=GUARD),
    Route("DELETE", "/v1/(exempt|ban)", "delete_guard", ("prefix",)),
    Route("GET", "/v1/buckets", "list_buckets", ("limit", "key", "live", "count")),
    Route("GET", "/v1/buckets/([^/]+)", "show_bucket", ("key",)),
    Route("POST", "/v1/buckets/reset", "reset", body={"limit": (TEXT, True), "key": (MAYBE, False)}),
    Route("POST", "/v1/nics/([^/]+)/attach", "attach", body=ATTACH),
    Route("POST", "/v1/nics/([^/]+)/confirm", "confirm", body={}),
    Route("DELETE", "/v1/nics/([^/]+)", "detach"),
    Route("GET", "/v1/top", "top", ("count",)),
    Route("GET", "/v1/audit", "audit", ("count",)),
    Route("GET", "/v1/store", "store_status"),
    Route("GET", "/v1/store/check", "store_check"),
    Route("POST", "/v1/store/consume", "store_consume", body=CONSUME),
    Route("GET", "/v1/standby", "standby"),
    Route("POST", "/v1/standby/follow", "standby", body=FOLLOW),
    Route("POST", "/v1/standby/take-over", "standby", body={"force": (BOOL, False)}),
    Route("POST", "/v1/standby/end", "standby", body={}),
    Route("GET", "/v1/notify", "notify_status"),
    Route("PUT", "/v1/notify/([^/]+)", "put_adapter", body=ADAPTER),
    Route("DELETE", "/v1/notify/([^/]+)", "delete_adapter"),
    Route("POST", "/v1/notify/([^/]+)/(test|retry)", "adapter_do", body={}),
    Route("GET", "/v1/call-limits", "call_limits", ("name", "serial")),
)


def checked(body: Any, shape: Shape) -> Any:
    """The body if it has the shape; refused otherwise."""
    if not isinstance(body, dict):
        raise RefusedError(400, "invalid", "the body is not an object")
    for name, value in body.items():
        if name not in shape:
            raise RefusedError(400, "invalid", f"unknown field {name}", where=name)
        if not isinstance(value, shape[name][0]):
            raise RefusedError(400, "invalid", f"{name} has the wrong type", where=name)
    for name, (_, needed) in shape.items():
        if needed and name not in body:
            raise RefusedError(400, "invalid", f"{name} is missing", where=name)
    return body


@dataclass
class FakeApi:
    """What the daemon would hold. The next request raises `refuse`; `answers` come first, by path."""

    limits: dict[str, dict[str, Any]] = field(default_factory=dict)
    overrides: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    guards: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {"exempt": {}, "ban": {}})
    buckets: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    refuse: RefusedError | None = None
    mode: str = "native"

    def answer(self, request: Request) -> Any:
        self.requests.append(request)
        if self.refuse:
            refused, self.refuse = self.refuse, None
            raise refused
        for route in ROUTES:
            found = re.fullmatch(route.pattern, request.path)
            if found is None or route.method != request.method:
                continue
            if unknown := request.query.keys() - set(route.query):
                raise RefusedError(400, "invalid", f"unknown query parameter {unknown}")
            if route.body is not None:
                checked(request.body, route.body)
            if request.path in self.answers:
                return self.answers[request.path]
            if not hasattr(self, route.handler):
                raise RefusedError(503, "unavailable", f"the test gave no answer for {request.path}")
            handler: Callable[..., Any] = getattr(self, route.handler)
            return handler(request, *map(unquote, found.groups()))
        raise RefusedError(404, "not-found", f"the API has no {request.method} {request.path}")

    def known(self, name: str) -> dict[str, Any]:
        if name not in self.limits:
            raise RefusedError(
                404, "not-found", f"there is no limit {name!r}", "valkyrie-ctl limits list shows them"
            )
        return self.limits[name]

    def list_limits(self, request: Request) -> Any:
        return {"limits": [self.limits[name] for name in sorted(self.limits)]}

    def show_limit(self, request: Request, name: str) -> Any:
        return self.known(name)

    def put_limit(self, request: Request, name: str) -> Any:
        given = {"match": "", "burst": None, "ban_for": None, "measure": "packets", **request.body}
        counters = dict.fromkeys(COUNTERS, 0)
        self.limits[name] = {"name": name, **given, "overrides": 0, "counters": counters}
        return self.limits[name]

    def delete_limit(self, request: Request, name: str) -> Any:
        self.known(name)
        del self.limits[name]
        return {"deleted": name}

    def list_overrides(self, request: Request, name: str) -> Any:
        self.known(name)
        return {"overrides": list(self.overrides.get(name, {}).values())}

    def put_overrides(self, request: Request, name: str) -> Any:
        self.known(name)
        shape: Shape = {"prefix": (TEXT, True), "rate": (TEXT, True), "burst": (MAYBE, False)}
        for index, entry in enumerate(request.body["overrides"]):
            checked(entry, shape)
            if "/33" in entry["prefix"]:
                raise RefusedError(
                    400, "invalid", f"{entry['prefix']} is no prefix", "/0 to /32", f"overrides[{index}]"
                )
        kept = self.overrides.setdefault(name, {})
        kept.update({entry["prefix"]: entry for entry in request.body["overrides"]})
        return {"set": len(request.body["overrides"]), "overrides": len(kept)}

    def delete_override(self, request: Request, name: str) -> Any:
        self.known(name)
        prefix = request.query["prefix"]
        if self.overrides.get(name, {}).pop(prefix, None) is None:
            raise RefusedError(404, "not-found", f"limit {name} has no override for {prefix}")
        return {"deleted": prefix}

    def apply(self, request: Request, what: str) -> Any:
        return {"diff": [], "applied": what == "apply"}

    def export(self, request: Request) -> Any:
        limits = [
            {name: value for name, value in limit.items() if name not in ("counters", "overrides")}
            for limit in self.limits.values()
        ]
        return {"limits": limits, "exempt": [], "ban": []}

    def explain(self, request: Request) -> Any:
        return {"verdict": "pass", "reason": "no-limit", "limit": None, "passes_on": [], "limits": []}

    def list_guards(self, request: Request, kind: str) -> Any:
        return {kind: list(self.guards[kind].values())}

    def put_guard(self, request: Request, kind: str) -> Any:
        body = request.body
        until = 4_000_000_000.0 if body.get("for") else None
        entry = {"prefix": body["prefix"], "until": until, "note": body.get("note", "")}
        self.guards[kind][body["prefix"]] = entry
        return entry

    def delete_guard(self, request: Request, kind: str) -> Any:
        prefix = request.query["prefix"]
        if self.guards[kind].pop(prefix, None) is None:
            raise RefusedError(404, "not-found", f"there is no {kind} of {prefix}")
        return {"deleted": prefix}

    def list_buckets(self, request: Request) -> Any:
        limit = request.query.get("limit")
        if limit is not None:
            self.known(limit)
        return {"buckets": self.buckets}

    def show_bucket(self, request: Request, name: str) -> Any:
        self.known(name)
        return self.buckets[0]

    def reset(self, request: Request) -> Any:
        self.known(request.body["limit"])
        return {"reset": 1}

    def call_limits(self, request: Request) -> Any:
        """The serial is the number of limits ever put."""
        limit = self.known(request.query["name"])
        serial = sum(one.method == "PUT" for one in self.requests)
        if request.query.get("serial") == str(serial):
            return {"serial": serial}
        entry = {**limit, "uid": 1, "overrides": list(self.overrides.get(limit["name"], {}).values())}
        return {"serial": serial, "limits": [entry]}

    def attach(self, request: Request, nic: str) -> Any:
        body = request.body
        return self.nic(nic, protect=body["protect"], wanted_mode=body["mode"], confirm=body["confirm"])

    def confirm(self, request: Request, nic: str) -> Any:
        return self.nic(nic)

    def detach(self, request: Request, nic: str) -> Any:
        return {"nic": nic, "attached": False}

    def nic(self, nic: str, protect: Any = (), wanted_mode: str = "auto", confirm: str | None = None) -> Any:
        return {
            "nic": nic,
            "attached": True,
            "mode": self.mode,
            "wanted_mode": wanted_mode,
            "protect": list(protect),
            "confirm_left_s": 60.0 if confirm else None,
            "problem": "",
        }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def handle_request(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length", 0))
        text = self.rfile.read(length)
        if parts.path == "/v1/events" and self.command == "GET":
            self.stream()
            return
        status, answer = 200, None
        try:
            body = json.loads(text) if text else None
            answer = self.server.api.answer(
                Request(self.command, parts.path, dict(parse_qsl(parts.query)), body)
            )
        except RefusedError as refused:
            status, answer = refused.status, {"error": refused.error}
        except ValueError as error:
            status, answer = 400, {"error": {"code": "invalid", "what": str(error), "hint": "", "where": ""}}
        self.send(status, json.dumps(answer).encode())

    do_GET = do_PUT = do_POST = do_DELETE = handle_request  # noqa: N815 (the names http.server asks for)

    def send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def stream(self) -> None:
        """All events, a comment as keep-alive, then the end."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b": keep-alive\n\n")
        for event in self.server.api.events:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class names it so)
        """Requests are in `api.requests`."""


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, api: FakeApi) -> None:
        self.api = api
        super().__init__(str(path), Handler)


@contextmanager
def serving(path: Path, api: FakeApi) -> Iterator[FakeApi]:
    """The API at a socket path while the block runs; the socket is gone afterwards."""
    server = Server(path, api)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        path.unlink()
