# SPDX-License-Identifier: Apache-2.0
"""What servers and drivers say went wrong, told in adapters/errors.py's words. The one place for it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

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

MAX_TEXT = 200  # of a server's words that are handed on


class UnknownScript(StoreUnavailable):
    """NOSCRIPT: the server has lost its scripts, or never had this one."""

    retryable = False


class NoPrimary(StoreUnavailable):
    """Who should serve the key does not at this moment, by what a server says: another one may soon."""


KINDS: dict[str, tuple[type[StoreError], str]] = {
    "WRONGPASS": (AuthenticationFailed, "set the right one with `valkyrie-ctl creds set`"),
    "NOAUTH": (AuthenticationFailed, "give the store a username and a credential"),
    "DENIED": (AuthenticationFailed, "the server wants a password: see its `protected-mode`"),
    "NOPERM": (AuthorizationFailed, "grant the user what docs/stores.md lists"),
    "WRONGTYPE": (ConsistencyError, "another program writes under this appliance's keys"),
    "LOADING": (NoPrimary, "the server is reading its data set: wait"),
    "CLUSTERDOWN": (NoPrimary, "a part of the cluster has no primary"),
    "TRYAGAIN": (StoreUnavailable, "slots are being moved"),
    "MOVED": (StoreUnavailable, "is it a cluster? then set cluster_mode: true"),
    "ASK": (StoreUnavailable, "slots are being moved"),
    "MASTERDOWN": (NoPrimary, "the replica has lost its primary"),
    "READONLY": (NoPrimary, "the server is a replica"),
    "NOREPLICAS": (StoreUnavailable, "too few replicas are in step for a write"),
    "MISCONF": (StoreUnavailable, "the server cannot save to its disk"),
    "OOM": (StoreUnavailable, "the server's memory is full: raise maxmemory or free some"),
    "BUSY": (StoreUnavailable, "a script keeps the server busy"),
    "NOSCRIPT": (UnknownScript, ""),
    "CROSSSLOT": (StoreConfigurationError, "keys of one call must share a slot"),
}
# Complaints that the servers put under the general code ERR, by how their text goes on.
GENERAL: tuple[tuple[str, type[StoreError], str], ...] = (
    ("AUTH <password> called without", AuthenticationFailed, "the server has no password: set none here"),
    ("invalid password", AuthenticationFailed, "set the right one with `valkyrie-ctl creds set`"),
    ("max number of clients", StoreUnavailable, "raise the server's maxclients, or lower pool_size"),
    ("value is not an integer", ConsistencyError, "its value is no integer of 64 bits"),
    ("increment or decrement would overflow", ConsistencyError, "its value would leave 64 bits"),
    ("DB index is out of range", StoreConfigurationError, "the URL names a database that there is not"),
    ("SELECT is not allowed in cluster", StoreConfigurationError, "a cluster has database 0 only"),
    ("unknown command", StoreConfigurationError, "the server is too old, or has this command renamed"),
    ("This instance has cluster support disabled", StoreConfigurationError, "set cluster_mode: false"),
)


class LinkLost(Exception):  # noqa: N818 never leaves this package
    """The connection broke while a call was under way."""


def code_of(text: str) -> str:
    """The first word of an error reply."""
    return text.partition(" ")[0]


def translate(text: str, where: str) -> StoreError:
    """The error for an error reply of the server `where`. None of these calls had an effect. What a server
    repeats of the words that it was sent is cut off: they may be a password.
    """
    text = text.partition(", with args")[0]
    code, _, rest = text.partition(" ")
    what = f"{where}: {text[:MAX_TEXT]}"
    if code in KINDS:
        kind, hint = KINDS[code]
        return kind(what, hint)
    said = rest if code == "ERR" else text
    for beginning, kind, hint in GENERAL:
        if said.startswith(beginning):
            return kind(what, hint)
    inner = _inside_a_script(text)
    return translate(inner, where) if inner else StoreError(what)


def _inside_a_script(text: str) -> str:
    """The reply that made a script fail: servers before 7 wrap it into a text of their own."""
    _, found, rest = text.partition("@user_script: ")
    return rest.partition(": -")[2] or rest if found else ""


def connecting(error: BaseException, where: str, hint: str = "") -> StoreError:
    """The error for a connection that did not come about: the call was not sent."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return AuthenticationFailed(
                f"{where} shows a certificate that is not trusted: {cause.verify_message}",
                "check tls.ca and the host's name",
            )
        if isinstance(cause, ssl.SSLError) and "CERTIFICATE" in str(cause.reason or "").upper():
            return AuthenticationFailed(
                f"{where} refuses this client's certificate: {cause.reason}",
                "check tls.certificate and tls.private_key",
            )
        if isinstance(cause, ssl.SSLError):
            hint = hint or "does that port speak TLS? if not, leave out `tls` and write redis://"
    return StoreConnectionError(
        f"no connection to {where}: {error}"[:MAX_TEXT], hint or "check that it runs there"
    )


def lost(where: str, why: str, *, repeatable: bool, timeout: bool) -> StoreError:
    """The error for a call that was sent and not answered."""
    if not repeatable:
        return OutcomeUnknown(
            f"{where}: {why} after the call was sent",
            "it took effect once, or not at all: it is not repeated",
        )
    if timeout:
        return StoreTimeout(f"{where}: {why}", "see whether the server is slow, or raise timeout_ms")
    return StoreConnectionError(f"{where}: {why}", "check that the server runs")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it came from: drivers wrap what TLS says."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__
