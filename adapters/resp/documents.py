# SPDX-License-Identifier: Apache-2.0
"""The appliance's documents in a server or cluster, in pieces, so that no call is long."""

from __future__ import annotations

from hashlib import blake2b

from valkyrie.adapters.errors import ConsistencyError
from valkyrie.adapters.naming import claim_key, document_key, part_key
from valkyrie.adapters.resp.ownership import DONE, Ownership
from valkyrie.adapters.resp.scripts import GET_DOCUMENT, PUT_DOCUMENT
from valkyrie.control.errors import InvalidInput

MAX_DOCUMENT = 64 << 20
PIECE = 1 << 20
UNFINISHED_MS = 600_000
TRIES = 5  # a document that is replaced while it is read is read again


class Documents(Ownership):
    """The part of DurableStore that is about documents."""

    async def put_document(self, name: str, content: bytes, token: str) -> None:
        """Readers see the old one whole or the new one whole. The same content again writes nothing."""
        if len(content) > MAX_DOCUMENT:
            raise InvalidInput(f"a document of {len(content)} bytes", f"at most {MAX_DOCUMENT}", name)
        digest = blake2b(content, digest_size=16).hexdigest()
        keys = (
            claim_key(self._appliance),
            document_key(self._appliance, name),
            part_key(self._appliance, name, digest),
        )
        at = 0
        for _ in range(TRIES + len(content) // PIECE):
            piece = content[at : at + PIECE]
            args = (token, name, digest, at, len(content), piece, UNFINISHED_MS)
            state, *rest = await self._client.script(PUT_DOCUMENT, keys, args, repeatable=True)
            if state != DONE:
                self.check_written([state, *rest])
            (at,) = rest  # where the server is: the next piece, or what a lost part begins again with
            if at == len(content):
                return
        raise ConsistencyError(
            f"the document {name} of {self._appliance} does not grow as it is written: {at} bytes",
            "try again",
        )

    async def get_document(self, name: str) -> bytes | None:
        for _ in range(TRIES):
            pieces: list[bytes] = []
            first: tuple[bytes, int] | None = None
            at = 0
            while first is None or at < first[1]:
                found = await self._piece(name, at)
                if found is None and first is None:
                    return None
                if found is None or (first is not None and found[:2] != first):
                    break
                if found[1] > MAX_DOCUMENT:
                    raise ConsistencyError(
                        f"the document {name} of {self._appliance} has {found[1]} bytes",
                        f"Valkyrie writes {MAX_DOCUMENT} at most: see what wrote there, then delete the key",
                    )
                first = found[:2]
                pieces.append(found[2])
                at += PIECE
            else:
                return b"".join(pieces)
        raise ConsistencyError(
            f"the document {name} of {self._appliance} was replaced {TRIES} times while it was read",
            "try again",
        )

    async def _piece(self, name: str, at: int) -> tuple[bytes, int, bytes] | None:
        """Digest and bytes of the whole, and what begins there."""
        keys = (claim_key(self._appliance), document_key(self._appliance, name))
        found = await self._client.script(GET_DOCUMENT, keys, (name, at, at + PIECE - 1), repeatable=True)
        return None if found is None else (found[0], found[1], found[2])
