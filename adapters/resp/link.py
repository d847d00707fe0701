# SPDX-License-Identifier: Apache-2.0
"""One connection to one server. What a driver is used for: sockets, and reading replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from valkyrie.adapters.errors import StoreError
from valkyrie.adapters.resp.address import Address
from valkyrie.adapters.resp.errors import LinkLost, connecting, translate
from valkyrie.adapters.resp.login import Login
from valkyrie.adapters.resp.tls import TlsMaterial
from valkyrie.adapters.secrets import Secret

Word = str | bytes | int
Command = Sequence[Word]

CLIENT_NAME = "valkyrie"
MAX_REPLY = 80 << 20  # bytes: a whole document (documents.py) and to spare
PLAIN_HINT = "it hung up on the greeting: if that port speaks TLS, write rediss:// or tls: true"


@dataclass(frozen=True, slots=True)
class Driver:
    """The parts of the `redis` or the `valkey` package that are used: no pool, retry or cluster of theirs,
    since those repeat calls that were sent (tests/stores/test_resp_faults.py counts effects).
    """

    name: str
    tcp: type[Any]
    unix: type[Any]
    parser: type[Any]
    refusal: type[Exception]  # an error reply
    errors: tuple[type[Exception], ...]
    pack: Callable[..., bytes]  # of a tuple of words

    def whole_errors(self) -> type[Any]:
        """The driver's parser, but bounded, and leaving an error reply's first word in its text."""
        own = {"EXCEPTION_CLASSES": {}, "gone": self.errors[0]}
        return type("Parser", (_Bounded, self.parser), own)

    def over_tls(self) -> type[Any]:
        return type("TlsConnection", (_OverTls, self.tcp), {})


class _Bounded:
    """Gives up on a reply of more than MAX_REPLY: a server must not fill this process's memory."""

    gone: type[Exception]
    _stream: Any  # these are the drivers', which name them alike
    _reader: Any
    _read_size: int
    _fed = 0

    async def read_response(self, *args: Any, **options: Any) -> Any:
        self._fed = 0
        return await super().read_response(*args, **options)  # type: ignore[misc]

    async def read_from_socket(self) -> bool:
        """As the drivers have it, counting."""
        piece: bytes = await self._stream.read(self._read_size)
        self._fed += len(piece)
        if not piece:
            raise self.gone("Connection closed by server.")
        if self._fed > MAX_REPLY:
            raise self.gone(f"a reply has more than {MAX_REPLY} bytes")
        self._reader.feed(piece)
        return True


class _OverTls:
    """Puts a shared context, and the name to check, in place of the driver's own."""

    tls_context: Any
    tls_name: str | None

    def _connection_arguments(self) -> dict[str, Any]:
        given: dict[str, Any] = super()._connection_arguments()  # type: ignore[misc]
        return {**given, "ssl": self.tls_context, "server_hostname": self.tls_name or given["host"]}


class Link:
    """A connection that one task uses at a time. A call that is cancelled or broken closes it, since a reply
    that comes late must not be read as the next one's.
    """

    __slots__ = ("_connection", "_driver", "secret", "where")

    def __init__(self, driver: Driver, connection: Any, where: str, secret: Secret | None) -> None:
        self._driver = driver
        self._connection = connection
        self.where = where
        self.secret = secret  # with which it is authenticated

    @property
    def usable(self) -> bool:
        """Whether it is connected as far as is known without asking: the peer has not hung up."""
        reader = self._connection._reader  # noqa: SLF001 the drivers show this in no other way
        return reader is not None and not reader.at_eof()

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one write and read their replies; error replies stand among them, as exceptions.
        Raises LinkLost when not all came.
        """
        pack = self._driver.pack
        try:
            packed = b"".join([pack(tuple(command)) for command in commands])
            await self._connection.send_packed_command(packed, check_health=False)
            return [await self._read() for _ in commands]
        except self._driver.errors as error:
            await self.close()
            raise LinkLost(str(error)) from error

    async def _read(self) -> Any:
        try:
            return await self._connection.read_response(disable_decoding=True)
        except self._driver.refusal as refusal:
            return refusal

    async def authenticate(self, login: Login) -> None:
        """AUTH on the open connection. When it is refused, the earlier authentication stays."""
        command = login.command()
        secret = login.secret
        if command is None or secret is self.secret:
            return
        (reply,) = await self.exchange([command])
        if isinstance(reply, Exception):
            raise translate(str(reply), self.where)
        self.secret = secret

    async def close(self) -> None:
        """Hang up, without waiting for the peer: TLS would otherwise wait for its answer to the farewell."""
        writer = self._connection._writer  # noqa: SLF001 the drivers have no way to abort
        if writer is not None:
            writer.transport.abort()
        await self._connection.disconnect(nowait=True)


class LinkMaker:
    """Opens connections: address, TLS, AUTH, database."""

    def __init__(self, driver: Driver, login: Login, tls: TlsMaterial | None, timeout_s: float) -> None:
        self.driver = driver
        self.login = login
        self._tls = tls
        self._timeout_s = timeout_s
        self._parser = driver.whole_errors()
        self._secure = driver.over_tls()

    async def open(
        self, address: Address, login: Login | None = None, *, database: int = 0, replica: bool = False
    ) -> Link:
        """A connection that is ready for commands, as the login in force or another. Raises StoreError:
        nothing but the greeting was sent.
        """
        connection = self._connection(address)
        where = str(address)
        try:
            await connection.connect()
        except self.driver.errors as error:
            raise connecting(error, where) from error
        link = Link(self.driver, connection, where, None)
        try:
            await self._greet(link, login or self.login, database, replica)
        except LinkLost as error:
            raise connecting(error, where, PLAIN_HINT if self._tls is None else self._tls.hint) from error
        except StoreError:
            await link.close()
            raise
        return link

    def _connection(self, address: Address) -> Any:
        common = {
            "protocol": 2,
            "parser_class": self._parser,
            "socket_timeout": None,  # one deadline spans the whole call: see Node
            "socket_connect_timeout": self._timeout_s,
        }
        if address.path is not None:
            connection = self.driver.unix(path=address.path, **common)
        elif self._tls is None:
            connection = self.driver.tcp(
                host=address.host, port=address.port, socket_keepalive=True, **common
            )
        else:
            connection = self._secure(host=address.host, port=address.port, socket_keepalive=True, **common)
            connection.tls_context = self._tls.context()
            connection.tls_name = self._tls.server_name
        for name in ("driver_info", "lib_name", "lib_version"):
            setattr(connection, name, None)  # no CLIENT SETINFO: a user may not be allowed to
        return connection

    async def _greet(self, link: Link, login: Login, database: int, replica: bool) -> None:
        """One write and its replies. CLIENT SETNAME also shows that the server talks to us at all."""
        auth = login.command()
        secret = login.secret
        must: list[Command] = [] if auth is None else [auth]
        must += [("SELECT", database)] if database else []
        must += [("READONLY",)] if replica else []
        replies = await link.exchange([*must, ("CLIENT", "SETNAME", CLIENT_NAME)])
        for reply in replies:
            text = str(reply) if isinstance(reply, Exception) else ""
            if text and not (reply is replies[-1] and text.startswith("NOPERM")):
                raise translate(text, link.where)
        link.secret = secret
