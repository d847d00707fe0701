# SPDX-License-Identifier: Apache-2.0
"""What the RESP client does without a server: URLs, redirects, error replies, topologies."""

from __future__ import annotations

import math
import ssl
from struct import Struct
from typing import cast

import pytest

from valkyrie.adapters.errors import (
    AuthenticationFailed,
    AuthorizationFailed,
    ConsistencyError,
    OutcomeUnknown,
    StoreConfigurationError,
    StoreConnectionError,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)
from valkyrie.adapters.limit import Limit
from valkyrie.adapters.resp.address import Address, parse_endpoint, parse_url
from valkyrie.adapters.resp.client import RespClient
from valkyrie.adapters.resp.cluster import _parse
from valkyrie.adapters.resp.commands import key_of
from valkyrie.adapters.resp.consume import Consumer, Taking
from valkyrie.adapters.resp.errors import connecting, lost, translate
from valkyrie.adapters.resp.topology import Redirect


@pytest.mark.parametrize(
    ("url", "address", "secure", "user", "database"),
    [
        ("redis://localhost:6379", Address("localhost", 6379), False, None, 0),
        ("rediss://host/2", Address("host", 6379), True, None, 2),
        ("valkeys://app@[::1]:7000/", Address("::1", 7000), True, "app", 0),
        ("valkey://a%40b@host?db=3", Address("host", 6379), False, "a@b", 3),
        ("unix:///run/my%20socket?db=1", Address(path="/run/my socket"), False, None, 1),
    ],
)
def test_urls_are_read(url: str, address: Address, secure: bool, user: str | None, database: int) -> None:
    target = parse_url(url)
    assert (target.address, target.secure, target.username, target.database) == (
        address,
        secure,
        user,
        database,
    )


@pytest.mark.parametrize(
    "url",
    ["redis://h:99999", "redis://h/x", "redis://h/-1", "redis://h?timeout=3", "unix://", "redis://[::1"],
)
def test_urls_that_cannot_be_meant_are_refused(url: str) -> None:
    with pytest.raises(StoreConfigurationError):
        parse_url(url)


@pytest.mark.parametrize("text", ["", ":1", "h:x", "h/1", "u@h:1", "h:70000"])
def test_endpoints_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(StoreConfigurationError):
        parse_endpoint(text, 1)


def test_redirects_are_read() -> None:
    assert Redirect.parse("MOVED 7 10.0.0.1:6379", "h") == Redirect(False, 7, Address("10.0.0.1", 6379))
    assert Redirect.parse("ASK 7 :6379", "asked") == Redirect(True, 7, Address("asked", 6379))
    assert Redirect.parse("MOVED 7 2001:db8::1:6379", "h") == Redirect(False, 7, Address("2001:db8::1", 6379))


@pytest.mark.parametrize(
    "text", ["MOVED", "MOVED 7", "MOVED x h:1", "MOVED 16384 h:1", "MOVED 7 h:x", "ERR 1 h:1"]
)
def test_what_is_no_redirect_is_none(text: str) -> None:
    assert Redirect.parse(text, "h") is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("WRONGPASS invalid username-password pair", AuthenticationFailed),
        ("NOAUTH Authentication required.", AuthenticationFailed),
        ("NOPERM User x has no permissions", AuthorizationFailed),
        ("LOADING Valkey is loading", StoreUnavailable),
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreUnavailable),
        ("READONLY You can't write against a read only replica.", StoreUnavailable),
        ("WRONGTYPE Operation against a key", ConsistencyError),
        ("ERR value is not an integer or out of range", ConsistencyError),
        ("ERR max number of clients reached", StoreUnavailable),
        ("ERR DB index is out of range", StoreConfigurationError),
        ("ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command", StoreError),
        ("something else", StoreError),
    ],
)
def test_error_replies_have_one_translation(text: str, kind: type[StoreError]) -> None:
    error = translate(text, "s:1")
    assert isinstance(error, kind)
    assert "s:1" in error.what


def test_what_a_server_repeats_of_a_command_is_not_told() -> None:
    error = translate("ERR unknown command 'AUTH', with args beginning with: 'app' 'secret' ", "s:1")
    assert "secret" not in str(error)


def test_a_lost_reply_is_unknown_only_if_the_call_must_not_be_repeated() -> None:
    assert isinstance(lost("s:1", "gone", repeatable=False, timeout=True), OutcomeUnknown)
    assert isinstance(lost("s:1", "gone", repeatable=True, timeout=True), StoreTimeout)
    assert isinstance(lost("s:1", "gone", repeatable=True, timeout=False), StoreConnectionError)


def test_a_certificate_that_is_not_trusted_is_found_below_what_drivers_make_of_it() -> None:
    deep = ssl.SSLCertVerificationError("no")
    deep.verify_message = "Hostname mismatch"
    outer = ConnectionError("Error 1 connecting")
    outer.__cause__ = OSError("other")
    outer.__cause__.__context__ = deep
    assert isinstance(connecting(outer, "s:1"), AuthenticationFailed)
    assert isinstance(connecting(ConnectionError("refused"), "s:1"), StoreConnectionError)


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "a"), "a"),
        (("PING",), None),
        (("INFO", "server"), None),
        (("EVALSHA", "abc", 1, "k", "arg"), "k"),
        (("eval", "return 1", 0), None),
        (("SET", b"raw", 1), b"raw"),
    ],
)
def test_the_key_of_a_command_is_found(
    command: tuple[str | bytes | int, ...], key: str | bytes | None
) -> None:
    assert key_of(command) == key


def test_a_topology_of_nonsense_has_no_primaries() -> None:
    for reply in (
        None,
        b"x",
        7,
        [7],
        [[0, 1]],
        [[5, 1, [b"h", 1]]],
        [[0, 99999, [b"h", 1]]],
        [[0, 1, [b"h"]]],
    ):
        assert not _parse(reply, "asked").primaries()
    made = _parse([[0, 5, [b"", 7000, b"id"], [b"10.0.0.2", 7001, b"id2"]]], "asked")
    assert made.slots[5] == Address("asked", 7000)
    assert made.slots[6] is None
    assert made.replicas[Address("asked", 7000)] == [Address("10.0.0.2", 7001)]


@pytest.mark.parametrize("reply", [None, 7, [b"x"], b"", b"short", Struct("<dBdH").pack(0, 1, math.inf, 0)])
async def test_an_answer_that_is_no_decision_is_told_as_what_it_is(reply: object) -> None:
    class Answering:
        async def script(self, *_: object, **__: object) -> object:
            return reply

        def slot_group(self, key: str) -> int:
            return 0

    consumer = Consumer(cast("RespClient", Answering()), "edge", "redis")
    cost = Limit.of("login", "10/m").cost
    (outcome,) = await consumer.take([Taking("=login/a", cost, 1)])
    assert isinstance(outcome, ConsistencyError)
