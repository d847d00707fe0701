# SPDX-License-Identifier: Apache-2.0
"""Options and argument types that several commands share, with their completion."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, TypeVar, cast

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

from valkyrie.control.cli.output import Kind, Output
from valkyrie.control.errors import InvalidInput

Function = TypeVar("Function", bound=Callable[..., Any])

DEFAULT_SOCKET = "/run/valkyrie/valkyried.sock"
COMPLETION_TIMEOUT = 0.5
KEYS = ("global", "src", "src/24", "src6/48", "src+dport", "dst", "dst/24", "dst6/48", "dport", "flow", "id")


def examples(*lines: str) -> str:
    """An epilog that shows command lines as they are typed."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def client_of(ctx: click.Context, timeout: float | None = None) -> Any:
    """The client for the socket that this command line names."""
    from valkyrie.control.cli.client import TIMEOUT, Client

    return Client(ctx.find_root().params.get("socket") or DEFAULT_SOCKET, timeout or TIMEOUT)


def with_client(function: Function) -> Function:
    """Passes a Client as first argument."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(client_of(click.get_current_context()), *args, **kwargs)

    return cast("Function", update_wrapper(wrapped, function))


def prints(function: Function) -> Function:
    """Adds -o and passes it as `out`."""

    def wrapped(*args: Any, output: str, **kwargs: Any) -> Any:
        return function(*args, out=Output(cast("Kind", output)), **kwargs)

    option = click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "yaml"]),
        default="table",
        show_default=True,
        help="How to print.",
    )
    return cast("Function", option(update_wrapper(wrapped, function)))


def asked(ctx: click.Context, path: str) -> Any:
    """An answer for completion: soon or not at all, for a Tab key must neither wait nor print errors."""
    from valkyrie.control.errors import ValkyrieError

    try:
        return client_of(ctx, COMPLETION_TIMEOUT).get(path)
    except ValkyrieError:
        return {}


def items(words: Any, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in sorted(set(words)) if word.startswith(incomplete)]


class LimitName(StringParamType):
    """The name of a limit; the daemon judges it."""

    name = "limit"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = asked(ctx, "/v1/limits").get("limits", [])
        return items((limit["name"] for limit in found), incomplete)


class NicName(StringParamType):
    """The name of a network interface of this host."""

    name = "nic"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        import socket

        return items((name for _, name in socket.if_nameindex()), incomplete)


class ListedPrefix(StringParamType):
    """A prefix; completed from the list at a path of the API."""

    name = "prefix"

    def __init__(self, path: str = "", member: str = "") -> None:
        self.path = path
        self.member = member

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        if not self.path:
            return []
        found = asked(ctx, self.path).get(self.member, [])
        return items((entry["prefix"] for entry in found), incomplete)


class KeyWord(StringParamType):
    """What gets its own bucket; the daemon judges it."""

    name = "key"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return items(KEYS, incomplete)


class Checked(StringParamType):
    """Text that a function of control/units.py must understand; the text itself goes on to the daemon."""

    def __init__(self, name: str, parser: str, examples: str) -> None:
        self.name = name
        self.parser = parser
        self.examples = examples

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from valkyrie.control import units

        text = str(value)
        try:
            getattr(units, self.parser)(text)
        except InvalidInput as error:
            hint = error.hint or f"like {self.examples}"
            label = param.opts[-1] if param is not None else self.name
            raise InvalidInput(error.what, hint, where=label) from error
        return text

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return []


DURATION = Checked("duration", "parse_duration", "60s, 10m, 1h or 2d")
RATE = Checked("rate", "parse_rate", "1000/s, 50mbit/s, 2.5MB/s or 10/h")
LIMIT = LimitName()
NIC = NicName()
KEY = KeyWord()
