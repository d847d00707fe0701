# SPDX-License-Identifier: Apache-2.0
"""The tests' own servers do what they are asked."""

import time
from typing import Any

import pytest
import redis

from support.certs import Certs
from support.clusters import Cluster, cluster, info, sentinel
from support.servers import Kind, Server, server, wait_for


def test_a_server_answers_on_its_port_and_socket_and_knows_both_passwords(resp_server: Server) -> None:
    assert resp_server.run("PING")
    for password in ("first-password", "second-password"):
        with redis.Redis(port=resp_server.port, username="app", password=password) as client:
            assert client.ping()
    with (
        redis.Redis(port=resp_server.port, username="reader", password="reader-password") as client,
        pytest.raises(redis.ResponseError, match="permission"),
    ):
        client.set("a", "b")


def test_the_valkey_server_is_a_valkey(valkey9: Server) -> None:
    assert info(valkey9, "SERVER")["server_name"] == "valkey"


def test_a_killed_server_keeps_what_it_acknowledged_and_its_port(kind: Kind) -> None:
    with server(kind, appendonly=True) as made:
        port = made.port
        made.run("SET", "a", "b")
        made.kill()
        with pytest.raises(redis.ConnectionError):
            made.run("PING")
        made.start()
        assert (made.run("GET", "a"), made.port) == (b"b", port)


def test_a_hung_server_goes_on(kind: Kind) -> None:
    with server(kind) as made:
        made.stop()
        with made.client(socket_timeout=0.1) as client, pytest.raises(redis.TimeoutError):
            client.ping()
        made.cont()
        assert made.run("PING")


def test_memory_that_is_full_refuses_writes(kind: Kind) -> None:
    def fill() -> None:
        for number in range(100):
            client.set(f"a{number}", b"b" * 100_000)

    with (
        server(kind, maxmemory="4mb") as made,
        made.client() as client,
        pytest.raises(redis.ResponseError, match="memory"),
    ):
        fill()


def test_tls_wants_a_certificate_of_the_client(redis_mtls: Server, certs: Certs) -> None:
    ours: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(certs.ca), "port": redis_mtls.port}
    with redis.Redis(ssl_certfile=str(certs.client), ssl_keyfile=str(certs.client_key), **ours) as client:
        assert client.ping()
    with redis.Redis(**ours) as client, pytest.raises(redis.RedisError):
        client.ping()


def test_a_cluster_is_whole_and_replaces_a_dead_primary(kind: Kind) -> None:
    with cluster(kind) as made:
        primary = made.primary_of("a")
        assert made.replica_of(primary) in made.nodes[3:]
        primary.kill()
        wait_for(lambda: made.primary_of("a") is not primary, "another primary")


def test_a_cluster_forms_over_tls(certs: Certs) -> None:
    with cluster("redis", certs=certs, mtls=True) as made:
        made.primary_of("a").run("SET", "a", "b")


def test_a_cluster_of_the_session_comes_empty(resp_cluster: Cluster) -> None:
    assert [node.run("DBSIZE") for node in resp_cluster.primaries()] == [0, 0, 0]


def test_sentinels_replace_a_dead_primary(kind: Kind) -> None:
    with sentinel(kind) as made:
        made.primary.kill()
        began = time.monotonic()
        wait_for(lambda: info(made.replica, "REPLICATION")["role"] == "master", "another primary")
        assert time.monotonic() - began < 15
