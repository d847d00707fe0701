# SPDX-License-Identifier: Apache-2.0
"""A mail server on the loopback that keeps what it is given and refuses as a test says."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass
class FakeSmtp:
    """`refuse` maps a command's first word to the answer that it gets; None there: never an answer."""

    context: ssl.SSLContext | None = None
    starttls: bool = True
    login: tuple[str, str] | None = None
    refuse: dict[str, str | None] = field(default_factory=dict)
    port: int = 0
    mails: list[tuple[str, list[str], str]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)

    async def serve(  # noqa: C901 - a case a command
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        sender, to = "", list[str]()

        def say(line: str) -> None:
            writer.write(line.encode() + b"\r\n")

        say("220 fake ESMTP")
        while line := (await reader.readline()).decode("latin-1").strip():
            word = line.split(" ")[0].split(":")[0].upper()
            if word in self.refuse:
                answer = self.refuse[word]
                if answer is None:
                    await reader.read()
                    return
                say(answer)
            elif word == "EHLO":
                more = ["250-fake", "250-AUTH PLAIN"] + (["250-STARTTLS"] if self.starttls else [])
                say("\r\n".join([*more, "250 8BITMIME"]))
            elif word == "STARTTLS":
                say("220 go on")
                await writer.drain()
                await writer.start_tls(self.context)  # type: ignore[arg-type]
            elif word == "AUTH":
                given = base64.b64decode(line.split(" ")[2]).decode().split("\0")[1:]
                say("235 in" if self.login and given == list(self.login) else f"535 not with {given[1]}")
            elif word == "MAIL":
                sender = line.partition("<")[2].partition(">")[0]
                say("250 fine")
            elif word == "RCPT":
                address = line.partition("<")[2].partition(">")[0]
                if address.startswith("nobody"):
                    say("550 no such user")
                else:
                    to.append(address)
                    say("250 fine")
            elif word == "DATA":
                say("354 go on")
                raw = (await reader.readuntil(b"\r\n.\r\n")).decode()
                self.mails.append((sender, to, raw))
                self.encrypted.append(writer.get_extra_info("ssl_object") is not None)
                say("250 queued as 4711")
            elif word == "QUIT":
                say("221 bye")
                return
            else:
                say("502 what")


@contextlib.asynccontextmanager
async def fake_smtp(made: FakeSmtp, *, tls: bool = False) -> AsyncIterator[FakeSmtp]:
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await made.serve(reader, writer)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            return
        finally:
            # After a failed handshake nobody would tell that it is closed, so it is not waited for.
            writer.close()
            await asyncio.sleep(0)

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=made.context if tls else None)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in tuple(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await server.wait_closed()
