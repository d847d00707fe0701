# SPDX-License-Identifier: Apache-2.0
"""From settings to a topology: which servers, as whom, over what."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from valkyrie.adapters.errors import StoreConfigurationError
from valkyrie.adapters.resp.address import SENTINEL_PORT, Target, parse_endpoint, parse_url
from valkyrie.adapters.resp.breaker import Breaker
from valkyrie.adapters.resp.cluster import Cluster
from valkyrie.adapters.resp.link import Driver, LinkMaker
from valkyrie.adapters.resp.login import Login
from valkyrie.adapters.resp.node import Node
from valkyrie.adapters.resp.pool import Opener, Pool
from valkyrie.adapters.resp.sentinel import Sentinel, Watched
from valkyrie.adapters.resp.single import Single
from valkyrie.adapters.resp.tls import TlsMaterial
from valkyrie.adapters.resp.topology import Topology
from valkyrie.adapters.secrets import Secret, Secrets
from valkyrie.adapters.settings import RespSettings, TlsSettings


@dataclass(frozen=True, slots=True)
class Logins:
    """As whom the servers are used, and the sentinels asked."""

    server: Login
    sentinel: Login


async def logins_of(settings: RespSettings, secrets: Secrets) -> Logins:
    """Raises StoreConfigurationError for a credential that there is not."""
    target = parse_url(settings.url)
    secret: Secret | None = None
    if settings.credential is not None:
        secret = await secrets.secret(settings.credential)
    elif settings.password_encrypted is not None:
        secret = secrets.open_encrypted(settings.password_encrypted)
    username = settings.username or target.username
    if username is not None and secret is None:
        raise StoreConfigurationError(
            f"the store's user {username!r} has no password", "name a `credential` beside `username`"
        )
    theirs = settings.sentinel
    if theirs is None or theirs.credential is None:
        return Logins(Login(username, secret), Login(None, None))
    return Logins(Login(username, secret), Login(theirs.username, await secrets.secret(theirs.credential)))


def topology_of(driver: Driver, settings: RespSettings, logins: Logins, *, replicas: bool) -> Topology:
    """Raises StoreConfigurationError for settings that contradict each other. Connects to nothing."""
    target = parse_url(settings.url)
    tls = tls_of(settings, target)
    timeout_s = settings.timeout_ms / 1000
    links = LinkMaker(driver, logins.server, tls, timeout_s)

    def make(where: str, opener: Opener, host: str = "") -> Node:
        clock = asyncio.get_running_loop().time
        breaker = Breaker(where, settings.breaker_failures, settings.breaker_seconds, clock)
        return Node(where, Pool(settings.pool_size, opener), breaker, host)

    if settings.cluster_mode:
        if target.address.path is not None or target.database:
            raise StoreConfigurationError("a cluster is reached over TCP and has database 0 only")
        return Cluster(make, links, target.address, timeout_s, settings.failover_s, replicas=replicas)
    if settings.sentinel is not None:
        theirs = settings.sentinel
        ask = LinkMaker(driver, logins.sentinel, tls, timeout_s)
        nodes = [parse_endpoint(node, SENTINEL_PORT) for node in theirs.nodes]
        watched = Watched(ask, nodes, theirs.master)
        return Sentinel(make, links, watched, target.database, settings.failover_s, replicas=replicas)
    return Single(make, links, target.address, target.database, replicas=replicas)


def tls_of(settings: RespSettings, target: Target) -> TlsMaterial | None:
    """A `rediss://` URL or `tls` asks for TLS; a Unix socket has none."""
    wanted = target.secure or bool(settings.tls)
    if not wanted:
        return None
    if target.address.path is not None:
        raise StoreConfigurationError("a Unix socket has no TLS", "leave out `tls`, or use a URL with a host")
    return TlsMaterial(settings.tls if isinstance(settings.tls, TlsSettings) else TlsSettings())
