# SPDX-License-Identifier: Apache-2.0
"""creds: passwords and keys of the appliance. Values come by prompt or standard input, not by argv."""

import sys
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

from valkyrie.control.cli.options import asked, examples, items, prints, with_client
from valkyrie.control.cli.output import Block, Column, Line, Output, Table
from valkyrie.control.credentials.words import (
    MAX_VALUE_BYTES,
    checked_name,
    checked_value,
    without_newline,
)
from valkyrie.control.errors import InvalidInput

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

COLUMNS = (Column("NAME"), Column("VERSION", right=True), Column("AGE", right=True), Column("USED BY"))


class CredentialName(StringParamType):
    """The name of a credential, checked here: a password typed in its place goes no further."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return checked_name(str(value))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = asked(ctx, "/v1/creds").get("credentials", [])
        return items((one["name"] for one in found), incomplete)


NAME = CredentialName()
in_argv = click.argument("in_argv", nargs=-1, metavar="")
from_stdin = click.option(
    "--stdin", is_flag=True, help="Read the value from standard input; without it, and on a terminal, ask."
)


def refuse_argv(given: tuple[str, ...], command: str) -> None:
    """Raises InvalidInput for values that were typed as arguments, without showing them."""
    if given:
        raise InvalidInput(
            "a value is not given on the command line: `ps` shows it to every user, and the shell keeps it",
            f"take it out of the shell's history (bash: history -d -1), choose another value, and run "
            f"`{command}`, which asks for it",
        )


def read_value(stdin: bool) -> str:
    """The value, asked for twice on a terminal, else all of standard input less one line end."""
    if stdin or not sys.stdin.isatty():
        raw = without_newline(sys.stdin.buffer.read(MAX_VALUE_BYTES + 3))
    else:
        raw = ask().encode()
    try:
        return checked_value(raw).decode()
    except UnicodeDecodeError:
        # Its text would quote the value.
        raise InvalidInput("the value is not UTF-8 text", "pipe binary keys through `base64 -w0`") from None


def ask() -> str:
    try:
        return str(click.prompt("Value", hide_input=True, confirmation_prompt=True, err=True))
    except click.Abort:
        raise KeyboardInterrupt from None  # Ctrl-C at a prompt is Ctrl-C


def age(seconds: float) -> str:
    from valkyrie.control.units import format_duration

    rounded = round(seconds) if seconds < 3600 else round(seconds / 60) * 60
    return format_duration(rounded * 1_000_000_000)


def listing(answer: dict[str, Any]) -> list[Block]:
    rows = [
        [one["name"], str(one["version"]), age(one["age_s"]), ", ".join(one["used_by"]) or "nobody"]
        for one in answer["credentials"]
    ]
    lines = [
        Line(f"missing: {name}, which the settings name; run: valkyrie-ctl creds set {name}", "yellow")
        for name in answer["missing"]
    ]
    return [Table(COLUMNS, rows, empty="no credentials"), *lines]


@click.group()
def creds() -> None:
    """Passwords and keys that the settings name; encrypted at rest, never shown."""


@creds.command(
    "set",
    epilog=examples(
        "valkyrie-ctl creds set valkey-password", "valkyrie-ctl creds set valkey-password --stdin < file"
    ),
)
@click.argument("name", type=NAME)
@in_argv
@from_stdin
@prints
@with_client
def set_(client: "Client", *, name: str, in_argv: tuple[str, ...], stdin: bool, out: Output) -> None:
    """Make credential NAME, or replace it whatever the stores say of the new value.

    Stores use it at once. To have the new value tried first, use `creds rotate`.
    """
    refuse_argv(in_argv, f"valkyrie-ctl creds set {name}")
    answer = client.put(f"/v1/creds/{name}", {"value": read_value(stdin)})

    def view() -> list[Block]:
        told = [Line(f"not taken: {complaint}", "yellow") for complaint in answer["complaints"]]
        return [Line(f"{name}: version {answer['version']} is in force"), *told]

    out.show(answer, view)


@creds.command("rotate", epilog=examples("valkyrie-ctl creds rotate valkey-password"))
@click.argument("name", type=NAME)
@in_argv
@from_stdin
@prints
@with_client
def rotate(client: "Client", *, name: str, in_argv: tuple[str, ...], stdin: bool, out: Output) -> None:
    """Replace NAME once every store that uses it took the new value.

    Open connections authenticate again and stay open. If a server refuses, the old value stays in force.
    """
    refuse_argv(in_argv, f"valkyrie-ctl creds rotate {name}")
    answer = client.post(f"/v1/creds/{name}/rotate", {"value": read_value(stdin)})
    users = {0: "no store has it in use", 1: "taken by 1 user"}
    taken = users.get(answer["taken_by"], f"taken by {answer['taken_by']} users")
    out.show(answer, lambda: [Line(f"{name}: version {answer['version']} is in force, {taken}")])


@creds.command("list")
@prints
@with_client
def list_(client: "Client", out: Output) -> None:
    """Names, versions, ages and users of the credentials."""
    answer = client.get("/v1/creds")
    out.show(answer, lambda: listing(answer))


@creds.command("delete", epilog=examples("valkyrie-ctl creds delete valkey-password"))
@click.argument("name", type=NAME)
@click.option("--force", is_flag=True, help="Also while the settings name it.")
@prints
@with_client
def delete(client: "Client", *, name: str, force: bool, out: Output) -> None:
    """Delete credential NAME. Connections that are open stay so."""
    answer = client.delete(f"/v1/creds/{name}", force="1" if force else None)
    out.show(answer, lambda: [Line(f"{name}: deleted")])


@creds.command("rekey")
@prints
@with_client
def rekey(client: "Client", out: Output) -> None:
    """Encrypt all credentials with a new master key."""
    answer = client.post("/v1/creds/rekey")

    def view() -> list[Block]:
        stale = [
            Line(f"{place} still needs the old key: make it anew with `valkyrie-ctl creds encrypt`", "yellow")
            for place in answer["stale"]
        ]
        return [Line(f"master key {answer['master_key']} is in force"), *stale]

    out.show(answer, view)


@creds.command("encrypt", epilog=examples("valkyrie-ctl creds encrypt"))
@in_argv
@from_stdin
@prints
@with_client
def encrypt(client: "Client", *, in_argv: tuple[str, ...], stdin: bool, out: Output) -> None:
    """Turn a value into text for `password_encrypted` in valkyrie.yaml of this host."""
    refuse_argv(in_argv, "valkyrie-ctl creds encrypt")
    answer = client.post("/v1/creds/encrypt", {"value": read_value(stdin)})
    out.show(answer, lambda: [Line(f"password_encrypted: {answer['password_encrypted']}")])
