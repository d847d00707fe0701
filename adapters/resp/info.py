# SPDX-License-Identifier: Apache-2.0
"""What a server says of itself, and whether the user may do what is needed there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from valkyrie.adapters.errors import AuthorizationFailed, StoreConfigurationError, StoreError
from valkyrie.adapters.naming import CALLERS, name_of, value_key
from valkyrie.adapters.resp.client import RespClient
from valkyrie.adapters.resp.consume import Consumer, Taking
from valkyrie.adapters.resp.scripts import INCREMENT
from valkyrie.control.cost import Cost
from valkyrie.control.dataplane.keyname import opaque

OLDEST = (7, 0)  # scripts that declare what they do
PROBE = "\0probe"  # the key that is tried at start
PROBE_MS = 1000


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """Of all primaries together. Empty where the user may not ask (INFO)."""

    name: str = ""
    version: str = ""
    primaries: int = 0
    faults: tuple[str, ...] = ()  # why it does not serve
    warnings: tuple[str, ...] = ()

    @property
    def serves(self) -> bool:
        return not self.faults

    def __str__(self) -> str:
        many = f", {self.primaries} primaries" if self.primaries > 1 else ""
        what = f"{self.name or 'a server'} {self.version}".rstrip() + many
        return "; ".join([what, *self.faults, *self.warnings])

    def check_version(self) -> None:
        """Raises StoreConfigurationError for a server that is too old."""
        parts = self.version.split(".")
        if self.version and tuple(int(part) for part in parts[:2] if part.isdecimal()) < OLDEST:
            raise StoreConfigurationError(
                f"{self.name} {self.version} is too old", f"{'.'.join(map(str, OLDEST))} at least"
            )


async def look(client: RespClient) -> ServerInfo:
    """Ask every primary. Raises StoreError if one does not answer."""
    try:
        sections = await client.on_primaries("INFO")
    except AuthorizationFailed:
        answers = await client.on_primaries("PING")
        return ServerInfo(primaries=len(answers))
    return summary([fields_of(section) for section in sections])


def fields_of(info: bytes) -> dict[str, str]:
    """INFO's lines `name:value`."""
    lines = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def summary(servers: Sequence[dict[str, str]]) -> ServerInfo:
    first = servers[0] if servers else {}
    valkey = first.get("server_name") == "valkey"  # it says redis_version 7.2.4 besides
    faults: dict[str, None] = {}
    warnings: dict[str, None] = {}
    for fields in servers:
        if fields.get("role", "master") != "master":
            faults["it is a read-only replica"] = None
        if fields.get("loading", "0") != "0":
            faults["it is reading its data set"] = None
        policy = fields.get("maxmemory_policy", "noeviction")
        # Buckets carry an expiry, so that policies for `volatile` keys evict them as well.
        if policy != "noeviction" and (fields.get("maxmemory", "0") != "0" or policy.startswith("allkeys")):
            warnings[
                f"maxmemory-policy {policy} may evict buckets, and a bucket that was evicted is full again:"
                " set noeviction"
            ] = None
    return ServerInfo(
        "valkey" if valkey else "redis",
        first.get("valkey_version" if valkey else "redis_version", ""),
        len(servers),
        tuple(faults),
        tuple(warnings),
    )


async def check_user(client: RespClient, appliance: str, consumer: Consumer) -> None:
    """Try what calls need, on keys of no meaning. Raises AuthorizationFailed that names the command, or why
    the server does not serve.
    """
    key = value_key(appliance, PROBE)
    await client.pipeline(
        [
            ("SET", key, 1, "PX", PROBE_MS),
            ("GET", key),
            ("EXISTS", key),
            ("PTTL", key),
            ("INCRBY", key, 1),
            ("DEL", key),
        ],
        repeatable=True,
    )
    await client.script(INCREMENT, [key], [1, PROBE_MS], repeatable=True)
    bucket = name_of(CALLERS, opaque(PROBE))
    for outcome in await consumer.take([Taking(bucket, Cost(1, 0, 1), 0)]):
        if isinstance(outcome, StoreError):
            raise outcome
