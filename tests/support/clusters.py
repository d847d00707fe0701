# SPDX-License-Identifier: Apache-2.0
"""Real clusters of six nodes, and a primary with a replica under three sentinels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from support.certs import Certs
from support.servers import Kind, Server, free_port, server, wait_for

PRIMARIES = 3
SLOTS = 16384
NODE_TIMEOUT_MS = 1500


@dataclass
class Cluster:
    """Three primaries and their replicas, as they were made: roles change with a failover."""

    nodes: list[Server]
    ids: list[str]

    @property
    def url(self) -> str:
        return self.nodes[0].url

    @property
    def running(self) -> list[Server]:
        return [node for node in self.nodes if node.process is not None]

    def primaries(self) -> list[Server]:
        """The running nodes that take themselves for primaries."""
        return [node for node in self.running if node.run("ROLE")[0] == b"master"]

    def primary_of(self, key: str) -> Server:
        """The running node that has this key's slot now."""
        slot = int(self.running[0].run("CLUSTER", "KEYSLOT", key))
        for node in self.primaries():
            if any(low <= slot <= high for low, high in _own_slots(node)):
                return node
        raise LookupError(f"no primary for slot {slot}")

    def replica_of(self, primary: Server) -> Server:
        """A replica that is in step with this primary."""
        for node in self.running:
            fields = info(node, "REPLICATION")
            if fields["role"] == "slave" and int(fields["master_port"]) == primary.port:
                return node
        raise LookupError(f"no replica of the node on port {primary.port}")

    def wait_until_whole(self) -> None:
        """Every running node says ok, every replica is linked, and no former primary takes itself for one."""
        wait_for(lambda: len(self.primaries()) == PRIMARIES, "three primaries")
        for node in self.running:
            wait_for(lambda node=node: _in_step(node), f"cluster node {node.port}")  # type: ignore[misc]


def info(node: Server, section: str) -> dict[str, str]:
    """INFO's lines, or CLUSTER INFO's (section `CLUSTER INFO`)."""
    answer = node.run("CLUSTER", "INFO") if section == "CLUSTER INFO" else node.run("INFO", section)
    return dict(line.split(":", 1) for line in answer.decode().splitlines() if ":" in line)


@contextmanager
def cluster(kind: Kind, *, certs: Certs | None = None, mtls: bool = False) -> Iterator[Cluster]:
    """A formed cluster; with TLS between the nodes and to clients if `certs` are given."""
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(server(kind, lines=_lines(certs), certs=certs, mtls=mtls)) for _ in "123456"
        ]
        made = Cluster(nodes, [node.run("CLUSTER", "MYID").decode() for node in nodes])
        _form(made)
        yield made


def _lines(certs: Certs | None) -> list[str]:
    return [
        "cluster-enabled yes",
        f"cluster-port {free_port()}",
        f"cluster-node-timeout {NODE_TIMEOUT_MS}",
        "cluster-announce-ip 127.0.0.1",
        "cluster-replica-validity-factor 0",
        *(["tls-cluster yes"] if certs else []),
    ]


def _own_slots(node: Server) -> list[tuple[int, int]]:
    mine = node.run("CLUSTER", "MYID").decode()
    for line in node_lines(node):
        words = line.split()
        if words[0] == mine:
            pairs = [word.split("-") for word in words[8:] if not word.startswith("[")]
            return [(int(pair[0]), int(pair[-1])) for pair in pairs]
    return []


def node_lines(node: Server) -> list[str]:
    """CLUSTER NODES."""
    lines: list[str] = node.run("CLUSTER", "NODES").decode().splitlines()
    return lines


def _form(made: Cluster) -> None:
    first, share = made.nodes[0], SLOTS // PRIMARIES
    for epoch, node in enumerate(made.nodes, 1):
        node.run("CLUSTER", "SET-CONFIG-EPOCH", epoch)
    for index, node in enumerate(made.nodes[:PRIMARIES]):
        last = SLOTS - 1 if index == PRIMARIES - 1 else (index + 1) * share - 1
        node.run("CLUSTER", "ADDSLOTSRANGE", index * share, last)
    for node in made.nodes[1:]:
        bus = next(line.split()[1] for line in node.lines if line.startswith("cluster-port"))
        first.run("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
    for node in made.nodes:
        known = f"all nodes known to {node.port}"
        wait_for(lambda node=node: _knows_all(node, made.ids), known)  # type: ignore[misc]
    for index, node in enumerate(made.nodes[PRIMARIES:]):
        node.run("CLUSTER", "REPLICATE", made.ids[index])
    made.wait_until_whole()
    for node in made.nodes:
        roles = f"roles known to {node.port}"
        wait_for(lambda node=node: sum("slave" in line for line in node_lines(node)) == PRIMARIES, roles)  # type: ignore[misc]


def _knows_all(node: Server, ids: list[str]) -> bool:
    lines = node_lines(node)
    known = {line.split()[0] for line in lines if "handshake" not in line}
    return known >= set(ids)


def _in_step(node: Server) -> bool:
    fields = info(node, "REPLICATION")
    linked = fields["role"] == "master" or fields["master_link_status"] == "up"
    return linked and info(node, "CLUSTER INFO")["cluster_state"] == "ok"


@dataclass
class Watched:
    """A primary `main` and its replica, as they were made, and the sentinels that watch them."""

    primary: Server
    replica: Server
    sentinels: list[Server]

    @property
    def nodes(self) -> tuple[str, ...]:
        """host:port of each sentinel."""
        return tuple(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)


@contextmanager
def sentinel(kind: Kind, *, password: str | None = None) -> Iterator[Watched]:
    """Three sentinels, who all know of each other and of the replica. A dead primary is replaced in about
    two seconds.
    """
    with ExitStack() as stack:
        primary = stack.enter_context(server(kind, password=password))
        replica = stack.enter_context(server(kind, password=password, replica_of=primary))
        lines = [
            f"sentinel monitor main 127.0.0.1 {primary.port} 2",
            "sentinel down-after-milliseconds main 1000",
            "sentinel failover-timeout main 5000",
            *([f"sentinel auth-pass main {password}"] if password else []),
        ]
        watchers = [
            stack.enter_context(server(kind, lines=lines, arguments=["--sentinel"])) for _ in range(3)
        ]
        made = Watched(primary, replica, watchers)
        wait_for(lambda: info(replica, "REPLICATION")["master_link_status"] == "up", "the replica's link")
        for watcher in watchers:
            wait_for(lambda watcher=watcher: _sees_all(watcher), f"sentinel {watcher.port}")  # type: ignore[misc]
        yield made


def _sees_all(watcher: Server) -> bool:
    state = info(watcher, "SENTINEL").get("master0", "")
    return "slaves=1" in state and "sentinels=3" in state
