# SPDX-License-Identifier: Apache-2.0
"""One client for Redis and Valkey: single server, Sentinel or Cluster behind the same few methods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from valkyrie.adapters.resp.scripts import Script

Word = str | bytes | int


class RespClient:
    """Replies are as the server sent them (RESP2): bytes, int, None, lists of these; text is not decoded.
    All methods raise StoreError.

    `repeatable` says whether the call may be made twice. Such a call is tried again (settings.max_retries)
    when a connection or a reply is lost. Another is sent at most once, and when no answer comes
    OutcomeUnknown is raised; what the server refused to run (MOVED, NOSCRIPT, READONLY...) counts as not
    sent.
    """

    async def run(self, *command: Word, repeatable: bool) -> Any:
        """One command. Its key is the second word (EVAL, EVALSHA: the fourth), which picks the node of a
        cluster; PING, TIME, INFO, CONFIG and the like go to any primary.
        """
        raise NotImplementedError

    async def script(
        self, script: Script, keys: Sequence[str], args: Sequence[Word], *, repeatable: bool
    ) -> Any:
        """EVALSHA; where the server does not know the script, EVAL. In a cluster all keys share a slot."""
        raise NotImplementedError

    async def pipeline(self, commands: Sequence[Sequence[Word]], *, repeatable: bool) -> list[Any]:
        """Many commands in one write to each node; replies in order. Not atomic. After all have been
        answered, the first error is raised.
        """
        raise NotImplementedError

    async def transaction(self, commands: Sequence[Sequence[Word]], *, repeatable: bool) -> list[Any]:
        """MULTI ... EXEC on one node: all keys share a slot."""
        raise NotImplementedError

    def scan(self, match: str, count: int = 1000) -> AsyncIterator[list[str]]:
        """Keys by pattern on every primary, in pieces; some may come twice, those made meanwhile not at all."""
        raise NotImplementedError

    def slot_group(self, key: str) -> int:
        """Keys of one group may share a script call or transaction: the slot in a cluster, else 0."""
        raise NotImplementedError
