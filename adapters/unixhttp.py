# SPDX-License-Identifier: Apache-2.0
"""One GET to the daemon over its Unix socket: what an application's process needs of HTTP, and no more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from valkyrie.adapters.errors import StoreUnavailable
from valkyrie.control.errors import InvalidInput, NotFound, PermissionRefused, ValkyrieError

TIMEOUT_S = 5.0
MAX_ANSWER = 64 * 1024 * 1024  # 100,000 overrides are 8 MB
HINT = "start it with `systemctl start valkyried`"


async def ask(socket: Path, path: str, query: Mapping[str, object]) -> Any:
    """The JSON answer. Raises NotFound, InvalidInput, PermissionRefused as the daemon says, else
    StoreUnavailable.
    """
    target = f"{path}?{urlencode({name: str(value) for name, value in query.items()})}"
    try:
        async with asyncio.timeout(TIMEOUT_S):
            status, body = await _get(socket, target)
    except PermissionError as error:
        raise PermissionRefused(
            f"this process may not open {socket}", "join the group valkyrie-read, which may look"
        ) from error
    except TimeoutError as error:
        raise StoreUnavailable(f"valkyried gave no answer within {TIMEOUT_S:g} s", HINT) from error
    except (OSError, EOFError, ValueError) as error:
        raise StoreUnavailable(f"valkyried cannot be asked at {socket}: {error}", HINT) from error
    try:
        answer = json.loads(body) if len(body) < 65536 else await asyncio.to_thread(json.loads, body)
        if status != 200:
            raise _refusal(status, answer["error"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreUnavailable(f"what answers at {socket} is not valkyried", HINT) from error
    return answer


async def _get(socket: Path, target: str) -> tuple[int, bytes]:
    """Status and body. Raises OSError, EOFError, or ValueError for what is no answer of HTTP/1.1."""
    reader, writer = await asyncio.open_unix_connection(socket, limit=65536)
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(":", 1) for line in lines if ":" in line)
        length = int(headers["content-length"])
        if not 0 <= length <= MAX_ANSWER:
            raise ValueError(f"an answer of {length} bytes")
        return int(first.split(" ", 2)[1]), await reader.readexactly(length)
    except (asyncio.LimitOverrunError, KeyError, IndexError) as error:
        raise ValueError(f"no answer of HTTP/1.1: {error!r}") from error
    finally:
        writer.close()


def _refusal(status: int, told: Mapping[str, str]) -> ValkyrieError:
    kinds: dict[str, type[ValkyrieError]] = {
        kind.code: kind for kind in (NotFound, InvalidInput, PermissionRefused)
    }
    kind = kinds.get(told["code"], StoreUnavailable)
    return kind(told["what"], told.get("hint", "") or f"HTTP {status}")
