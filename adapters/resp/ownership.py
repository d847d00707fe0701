# SPDX-License-Identifier: Apache-2.0
"""Who syncs under the appliance's name, in a server or cluster.

The record `claim` decides who it is; every shard has a copy, so that a write there can be checked in one
act with it. On a single server all are written at once. In a cluster `claim` comes first and the shards
follow within milliseconds: a former owner may until then raise and drop buckets in those not reached yet. A
raise makes a bucket stricter; a drop, of what was reset or whose limit was deleted there, makes it full. The
new owner reads and writes buckets only when it has all shards, so no drop undoes what it wrote. An epoch of
a claim that was overtaken is refused by the shards that have a later one.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from valkyrie.adapters.durable import Owner
from valkyrie.adapters.errors import ConsistencyError, OwnedByAnother
from valkyrie.adapters.naming import SHARDS, claim_key, owner_key
from valkyrie.adapters.resp.client import RespClient
from valkyrie.adapters.resp.scripts import CLAIM, OWNERS, RELEASE, RENEW, Script

DONE = 1
US_A_SECOND = 1_000_000
MAX_SILENT_S = 10 * 365 * 86_400.0  # so that microseconds stay exact in a double


class Ownership:
    """The part of DurableStore that is about owners; the others check with `check_written`."""

    def __init__(self, client: RespClient, appliance: str) -> None:
        self._client = client
        self._appliance = appliance

    @cached_property
    def _records(self) -> list[list[str]]:
        """The keys of the records, those that one call may touch together; the first has `claim`."""
        groups: dict[int, list[str]] = {}
        shards = [owner_key(self._appliance, shard) for shard in range(SHARDS)]
        for key in (claim_key(self._appliance), *shards):
            groups.setdefault(self._client.slot_group(key), []).append(key)
        return list(groups.values())

    async def claim(self, node: str, token: str, *, takeover: bool = False, silent_s: float = 10.0) -> Owner:
        """Silence is reckoned by the server's clock: a step forward makes a living owner look silent, and it
        is then told so at its next write; a step back makes a dead one look alive, and takes a takeover.
        """
        if not token:
            raise ValueError("an owner's token is not empty")
        present = _latest(await self._found())
        epoch = 1
        if present is not None:
            epoch += present.epoch
            free = present.token in {token, ""} or takeover or present.silent_s >= silent_s
            if not free:
                raise self._taken(present.node, f"heard of {present.silent_s:.1f} s ago")
        patience = int(min(silent_s, MAX_SILENT_S) * US_A_SECOND)
        for index, keys in enumerate(self._records):  # the first decides, the others follow it
            args = (token, node, int(takeover or index > 0), patience, epoch)
            answer = await self._client.script(CLAIM, keys, args, repeatable=True)
            if answer != DONE:
                raise self._taken(answer[1].decode(errors="replace"), "since this moment")
        return Owner(token, node, epoch, 0.0)

    def _taken(self, node: str, when: str) -> OwnedByAnother:
        return OwnedByAnother(
            f"{node} syncs under the name {self._appliance}, {when}",
            "give each appliance a name of its own (store.name), stop the other one, or take over",
        )

    async def renew(self, token: str) -> None:
        await self._everywhere(RENEW, token)

    async def release(self, token: str) -> None:
        await self._everywhere(RELEASE, token)

    async def owner(self) -> Owner | None:
        latest = _latest(await self._found())
        return None if latest is None or not latest.token else latest

    def check_written(self, answer: Any) -> None:
        """Raises ConsistencyError when a script refused since its caller is not the owner (owner.lua)."""
        if answer == DONE:
            return
        why, *who = [word.decode(errors="replace") for word in answer]
        if why == "gone":
            raise ConsistencyError(
                f"the store has lost data: {who[0]}, where the owner of {self._appliance} stands, is gone",
                "claim the name again and write everything",
            )
        does = "nobody does" if why == "released" else f"{who[0]} does"
        raise (ConsistencyError if why == "released" else OwnedByAnother)(
            f"this node syncs under the name {self._appliance} no more: {does}", "claim the name again"
        )

    async def _everywhere(self, script: Script, token: str) -> None:
        for keys in self._records:
            self.check_written(await self._client.script(script, keys, [token], repeatable=True))

    async def _found(self) -> list[Owner]:
        return [
            _owner(record)
            for keys in self._records
            for record in await self._client.script(OWNERS, keys, [], repeatable=True)
            if record
        ]


def _owner(record: list[bytes]) -> Owner:
    token, node, epoch, silent_us = (word.decode(errors="replace") for word in record)
    return Owner(token, node, int(epoch), max(0, int(silent_us)) / US_A_SECOND)


def _latest(found: list[Owner]) -> Owner | None:
    """The record of the last claim, heard of last; one that was released has no token."""
    return max(found, key=lambda owner: (owner.epoch, -owner.silent_s), default=None)
