# SPDX-License-Identifier: Apache-2.0
"""notify: ways to reach people, tried out and looked at."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

from valkyrie.control.cli.exits import NOTIFY_FAILED
from valkyrie.control.cli.options import asked, examples, items, prints, with_client
from valkyrie.control.cli.output import Block, Column, Facts, Line, Output, Table
from valkyrie.control.errors import InvalidInput

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

SEVERITIES = ("info", "warning", "error", "critical")
KINDS = ("console", "webhook", "slack", "sendgrid", "twilio", "smtp", "mqtt")
ADAPTERS = (Column("NAME"), Column("KIND"), Column("FROM"), Column("GETS"), Column("STATE", styled=True))
STANDINGS = (
    Column("NAME"),
    Column("STATE", styled=True),
    Column("DELIVERED", right=True),
    Column("QUEUED", right=True),
    Column("FAILURES", right=True),
    Column("DROPPED", right=True),
    Column("DEAD", right=True),
    Column("LAST ERROR"),
)
DEAD = (Column("ADAPTER"), Column("DIED"), Column("SEVERITY"), Column("TITLE"), Column("WHY"))


class AdapterName(StringParamType):
    """The name of an adapter; the daemon judges it."""

    name = "name"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = asked(ctx, "/v1/notify").get("adapters", [])
        return items((one["name"] for one in found), incomplete)


class Setting(StringParamType):
    """SETTING=VALUE of an adapter; its kind says which settings there are."""

    name = "setting"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        known = asked(ctx, "/v1/notify").get("kinds", {}).get(ctx.params.get("kind"), [])
        return items((f"{word}=" for word in known), incomplete)


NAME = AdapterName()


def pairs(given: tuple[str, ...], what: str) -> list[tuple[str, str]]:
    """NAME=VALUE, split. Raises InvalidInput, without showing what may be a secret."""
    found = []
    for number, text in enumerate(given, 1):
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise InvalidInput(f"{what} {number} is not NAME=VALUE", "as credential=ops-slack")
        found.append((name, value))
    return found


def fields_of(given: tuple[str, ...]) -> dict[str, Any]:
    """Settings as the API takes them: `tls.ca=FILE` goes into a section, what is given twice is a list."""
    made: dict[str, Any] = {}
    for name, value in pairs(given, "setting"):
        section, dot, inner = name.partition(".")
        if dot:
            made.setdefault(section, {})
            if not isinstance(made[section], dict):
                raise InvalidInput(f"{section} is given as a value and as a section", where=section)
            made[section][inner] = value
        elif name not in made:
            made[name] = value
        elif isinstance(made[name], list):
            made[name].append(value)
        elif isinstance(made[name], str):
            made[name] = [made[name], value]
        else:
            raise InvalidInput(f"{name} is given as a value and as a section", where=name)
    return made


def gets(one: Mapping[str, Any]) -> str:
    """Which messages an adapter gets, in words."""
    texts = []
    for route in one["routes"]:
        tags = "".join(f", {name}={value}" for name, value in route["tags"].items())
        texts.append(f"{route['severity']}{'' if route['severity'] == 'critical' else '+'}{tags}")
    return "; ".join(texts) or "nothing"


def clock(seconds: float) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def listing(answer: Mapping[str, Any]) -> list[Block]:
    rows = [[one["name"], one["kind"], one["from"], gets(one), one["state"]] for one in answer["adapters"]]
    return [Table(ADAPTERS, rows, empty="no adapters: nobody is notified"), *problems(answer)]


def problems(answer: Mapping[str, Any]) -> list[Block]:
    texts = [text for text in (answer["problem"], answer["queue"]["problem"]) if text]
    return [Line(f"problem: {text}", "yellow") for text in texts]


def standing_row(one: Mapping[str, Any]) -> list[str]:
    numbers = [one.get(name, 0) for name in ("delivered", "queued", "failures", "dropped")]
    dead = one["dead"] + one["forgotten"]
    return [one["name"], one["state"], *map(str, numbers), str(dead), one.get("last_error") or "-"]


def more_lines(one: Mapping[str, Any]) -> list[Block]:
    """What only one kind of adapter knows."""
    more = one["more"]
    texts = []
    if "connected" in more:
        texts.append("connected" if more["connected"] else f"not connected: {more['problem']}")
    if isinstance(more.get("commands"), dict):
        commands = more["commands"]
        texts.append(f"{commands['done']} commands done, {commands['refused']} refused")
        if commands["last_refusal"]:
            texts.append(f"the last: {commands['last_refusal']}")
    return [Line(f"{one['name']}: {', '.join(texts)}")] if texts else []


def status_view(answer: Mapping[str, Any]) -> list[Block]:
    durable = "on disk" if answer["queue"]["durable"] else "in memory alone"
    facts = [
        ("node", answer["node"]),
        ("queue", durable),
        ("without a route", str(answer["unrouted"])),
    ]
    if answer["lost_before_start"]:
        facts.append(("lost", f"{answer['lost_before_start']} before the queue was open"))
    rows = [standing_row(one) for one in answer["adapters"]]
    blocks: list[Block] = [Facts(facts), Table(STANDINGS, rows, empty="no adapters: nobody is notified")]
    for one in answer["adapters"]:
        blocks += more_lines(one)
    if answer["dead"]:
        graves = [
            [one["adapter"], clock(one["died"]), one["severity"], one["title"], one["why"]]
            for one in answer["dead"]
        ]
        blocks.append(Table(DEAD, graves, title="Not delivered (`notify retry NAME` tries again)"))
    return [*blocks, *problems(answer)]


@click.group()
def notify() -> None:
    """Notifications: whom alerts are told to, how, and whether it works."""


@notify.command(
    epilog=examples(
        "valkyrie-ctl notify add ops slack credential=ops-slack",
        "valkyrie-ctl notify add pager twilio account=AC00000000000000000000000000000000 "
        "credential=twilio-token from=+15550100 to=+15550123 --severity critical",
        "valkyrie-ctl notify add hooks webhook url=https://example.net/hook --tag limit=web",
    )
)
@click.argument("name", type=NAME)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("settings", nargs=-1, type=Setting())
@click.option(
    "--severity",
    type=click.Choice(SEVERITIES),
    default="warning",
    show_default=True,
    help="Messages of this severity and above.",
)
@click.option(
    "--tag", "tags", multiple=True, metavar="NAME=VALUE", help="Only with this tag; `*`: any value."
)
@prints
@with_client
def add(
    client: "Client", *, name: str, kind: str, settings: tuple[str, ...], severity: str,
    tags: tuple[str, ...], out: Output,
) -> None:  # fmt: skip
    """Add adapter NAME of a KIND, with SETTINGS as NAME=VALUE; or replace one that was added.

    Passwords, tokens and secret URLs are not given here, but by `creds set`; name them: credential=NAME.
    """
    fields = {**fields_of(settings), "kind": kind}
    body = {"settings": fields, "severity": severity, "tags": dict(pairs(tags, "tag"))}
    answer = client.put(f"/v1/notify/{quoted(name)}", body)
    out.show(answer, lambda: [Line(f"{name}: added; try it: valkyrie-ctl notify test {name}")])


@notify.command("list")
@prints
@with_client
def list_(client: "Client", out: Output) -> None:
    """The adapters, and which messages they get."""
    answer = client.get("/v1/notify")
    out.show(answer, lambda: listing(answer))


@notify.command()
@prints
@with_client
def status(client: "Client", out: Output) -> None:
    """What was delivered, what waits, what failed, and what could not be delivered at all."""
    answer = client.get("/v1/notify")
    out.show(answer, lambda: status_view(answer))


@notify.command(epilog=examples("valkyrie-ctl notify test ops"))
@click.argument("name", type=NAME)
@prints
@with_client
@click.pass_context
def test(ctx: click.Context, client: "Client", *, name: str, out: Output) -> None:
    """Send a note through adapter NAME, past its queue, and show what the service answered."""
    answer = client.post(f"/v1/notify/{quoted(name)}/test")
    out.show(answer, lambda: tested(answer))
    if not answer["ok"]:
        ctx.exit(NOTIFY_FAILED)


def tested(answer: Mapping[str, Any]) -> list[Block]:
    took = f"{answer['took_ms']:.0f} ms"
    if answer["ok"]:
        return [Line(f"{answer['name']}: {answer['answer']} ({took})", "green")]
    again = "this is final" if answer["permanent"] else "a message would be tried again"
    if answer["retry_after"] is not None:
        again += f" after {answer['retry_after']:.0f} s, as it asks"
    lines: list[Block] = [Line(f"{answer['name']}: {answer['answer']} ({took}); {again}", "red")]
    return [*lines, Line(f"hint: {answer['hint']}", "yellow")] if answer["hint"] else lines


@notify.command(epilog=examples("valkyrie-ctl notify retry ops"))
@click.argument("name", type=NAME)
@prints
@with_client
def retry(client: "Client", *, name: str, out: Output) -> None:
    """Try now what waits for adapter NAME, and what was given up."""
    answer = client.post(f"/v1/notify/{quoted(name)}/retry")
    out.show(
        answer, lambda: [Line(f"{name}: {answer['queued']} wait, of which {answer['revived']} were given up")]
    )


@notify.command(epilog=examples("valkyrie-ctl notify remove ops"))
@click.argument("name", type=NAME)
@prints
@with_client
def remove(client: "Client", *, name: str, out: Output) -> None:
    """Remove adapter NAME, which was added by `notify add`, with what waits for it."""
    answer = client.delete(f"/v1/notify/{quoted(name)}")
    lost = f"; {answer['dropped']} messages that waited are gone" if answer["dropped"] else ""
    out.show(answer, lambda: [Line(f"{name}: removed{lost}")])


def quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="") or "-"
