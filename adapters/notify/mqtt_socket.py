# SPDX-License-Identifier: Apache-2.0
"""A connected socket for a broker or a mail server. MQTT's library would connect and shake hands in a thread
that nothing can end, and which a stopping daemon would wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

from valkyrie.adapters.notify.lookup import Lookup


async def connected(host: str, port: int, context: ssl.SSLContext | None, lookup: Lookup) -> socket.socket:
    """A socket that does not block; the first address that answers. Raises OSError; may be cancelled."""
    loop = asyncio.get_running_loop()
    found = await lookup.addresses(host, port)
    wrong: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in found:
        plain = socket.socket(family, kind, protocol)
        try:
            plain.setblocking(False)
            await loop.sock_connect(plain, address)
            if context is None:
                return plain
            return await _shaken(plain, context, host)
        except OSError as error:
            plain.close()
            wrong = error
        except BaseException:
            plain.close()
            raise
    raise wrong


async def _shaken(plain: socket.socket, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    wrapped = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
    try:
        while True:
            try:
                wrapped.do_handshake()
            except ssl.SSLWantReadError:
                await _ready(wrapped, write=False)
            except ssl.SSLWantWriteError:
                await _ready(wrapped, write=True)
            else:
                return wrapped
    except BaseException:
        wrapped.close()
        raise


async def _ready(sock: socket.socket, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    number = sock.fileno()
    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(number, ready.set)
    try:
        await ready.wait()
    finally:
        with contextlib.suppress(OSError, ValueError):
            remove(number)
