# SPDX-License-Identifier: Apache-2.0
"""A client on a test's server or cluster, whichever it is."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from support.clusters import Cluster
from support.resp import client_for
from support.servers import Server
from valkyrie.adapters.resp.client import RespClient


def connected(where: Server | Cluster, **options: Any) -> AbstractAsyncContextManager[RespClient]:
    """`options` are settings. It waits long, so that a slow machine makes no failures."""
    given: dict[str, Any] = {"timeout_ms": 10_000, **options}
    if isinstance(where, Cluster):
        return client_for(where.nodes[0].kind, where.url, None, cluster_mode=True, **given)
    return client_for(where.kind, where.url, None, **given)
