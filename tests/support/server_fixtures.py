# SPDX-License-Identifier: Apache-2.0
"""Fixtures of real servers, for the conftest.py of tests/stores and tests/contract.

The servers run for the session and come empty to each test; what a test kills or hangs it starts itself,
with support.servers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certs import Certs, make_certs
from support.clusters import Cluster, cluster
from support.servers import USERS, Kind, Server, server


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    return make_certs(Path(tmp_path_factory.mktemp("certs")))


@pytest.fixture(scope="session")
def _redis() -> Iterator[Server]:
    with server("redis", users=USERS) as made:
        yield made


@pytest.fixture(scope="session")
def _valkey() -> Iterator[Server]:
    with server("valkey", users=USERS) as made:
        yield made


@pytest.fixture(scope="session")
def _redis_mtls(certs: Certs) -> Iterator[Server]:
    with server("redis", users=USERS, certs=certs, mtls=True) as made:
        yield made


@pytest.fixture(scope="session")
def _redis_cluster() -> Iterator[Cluster]:
    with cluster("redis") as made:
        yield made


@pytest.fixture(scope="session")
def _valkey_cluster() -> Iterator[Cluster]:
    with cluster("valkey") as made:
        yield made


def emptied(made: Server) -> Server:
    made.run("FLUSHALL")
    return made


@pytest.fixture
def redis7(_redis: Server) -> Server:
    """Redis, empty, with USERS."""
    return emptied(_redis)


@pytest.fixture
def valkey9(_valkey: Server) -> Server:
    """Valkey, empty, with USERS."""
    return emptied(_valkey)


@pytest.fixture
def redis_mtls(_redis_mtls: Server) -> Server:
    """Redis, empty, over TLS, which asks for client certificates of `certs`."""
    return emptied(_redis_mtls)


@pytest.fixture(params=["redis", "valkey"])
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture
def resp_server(kind: Kind, request: pytest.FixtureRequest) -> Server:
    """Each of both servers in turn, empty."""
    made = request.getfixturevalue("redis7" if kind == "redis" else "valkey9")
    assert isinstance(made, Server)
    return made


@pytest.fixture
def resp_cluster(kind: Kind, request: pytest.FixtureRequest) -> Cluster:
    """A cluster of each kind in turn, empty and whole. Whoever kills a node starts it again."""
    made = request.getfixturevalue(f"_{kind}_cluster")
    assert isinstance(made, Cluster)
    made.wait_until_whole()
    for node in made.primaries():
        node.run("FLUSHALL")
    return made
