# SPDX-License-Identifier: Apache-2.0
"""alerts: what fires, why, and who is not to be called for it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType

from valkyrie.control.cli.options import DURATION, LIMIT, NIC, asked, examples, items, prints, with_client
from valkyrie.control.cli.output import Block, Column, Line, Output, Table
from valkyrie.control.errors import InvalidInput

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

WHENS = (
    "drop-rate", "drop-share", "shadow-rate", "top-talker", "table-full", "table-evicting", "nic-detached",
    "nic-down", "store-switched", "store-none", "breaker-open", "sync-lag", "credential-old",
    "daemon-restarted", "events-lost", "event",
)  # fmt: skip
SEVERITIES = ("info", "warning", "error", "critical")
TEST_FIELDS = ("when", "limit", "nic", "credential", "event", "above", "at_least")
NS = 1_000_000_000

ALERTS = (
    Column("SEVERITY", styled=True),
    Column("STATE"),
    Column("RULE"),
    Column("SINCE"),
    Column("VALUE", right=True),
    Column("PEAK", right=True),
    Column("WHAT"),
    Column("NOTE"),
)
SILENCES = (Column("SILENCED"), Column("FOR ANOTHER", right=True), Column("BY"), Column("WHY"))
HISTORY = (
    Column("TIME"),
    Column("CHANGE"),
    Column("SEVERITY", styled=True),
    Column("RULE"),
    Column("WHAT"),
    Column("NOTE"),
)
RULES = (
    Column("RULE"),
    Column("WHEN"),
    Column("OF"),
    Column("ABOVE", right=True),
    Column("FOR", right=True),
    Column("CLEAR AFTER", right=True),
    Column("SEVERITY", styled=True),
    Column("FROM"),
    Column("NOTE"),
)
READINGS = (Column("OF"), Column("VALUE", right=True), Column("ABOVE", styled=True), Column("WHAT"))


class RuleName(StringParamType):
    """The name of a rule; the daemon judges it."""

    name = "name"

    def __init__(self, origin: str = "") -> None:
        self.origin = origin

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = asked(ctx, "/v1/alerts/rules").get("rules", [])
        return items((one["name"] for one in found if self.origin in ("", one["origin"])), incomplete)


class Match(StringParamType):
    """What a silence covers."""

    name = "match"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        rules = asked(ctx, "/v1/alerts/rules").get("rules", [])
        firing = asked(ctx, "/v1/alerts").get("alerts", [])
        tags = [f"{tag}={value}" for one in firing for tag, value in one["tags"].items()]
        return items([*(one["name"] for one in rules), *tags], incomplete)


class Silenced(StringParamType):
    """The match of a silence that there is."""

    name = "match"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found = asked(ctx, "/v1/alerts").get("silences", [])
        return items((one["match"] for one in found), incomplete)


def clock(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).astimezone().strftime("%m-%d %H:%M:%S")


def left(seconds: float) -> str:
    from valkyrie.control.units import format_duration

    return format_duration(max(1, round(seconds)) * NS, 2)


def alert_row(one: Mapping[str, Any]) -> list[str]:
    note = (
        "silenced" if one["silenced"] else "" if one["told"] or one["state"] == "waiting" else "not told yet"
    )
    since = clock(one["fired"] or one["since"])
    return [
        one["severity"], one["state"], one["rule"], since, one["value"], one["peak"], one["what"], note
    ]  # fmt: skip


def alerts_view(answer: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = [Line(problem, "yellow") for problem in answer["problems"]]
    blocks.append(Table(ALERTS, [alert_row(one) for one in answer["alerts"]], empty="no alerts"))
    rows = [[one["match"], left(one["left_s"]), one["by"], one["why"]] for one in answer["silences"]]
    return [*blocks, Table(SILENCES, rows)] if rows else blocks


def rule_row(one: Mapping[str, Any]) -> list[str]:
    note = one["problem"] if one["enabled"] else "off"
    which = {"*": "each", "": ""}.get(one["which"], one["which"])
    above = one["above"] or ""
    return [
        one["name"], one["when"], which, above, one["for"], one["clear_after"], one["severity"],
        one["origin"], note,
    ]  # fmt: skip


def test_view(answer: Mapping[str, Any]) -> list[Block]:
    if answer["problem"]:
        return [Line(f"it watches nothing: {answer['problem']}", "yellow")]
    if not answer["known"]:
        return [Line("that is not known now: look again in some seconds", "yellow")]
    rows = [
        [one["subject"] or "-", one["value"] or "?", "yes" if one["above"] else "no", one["what"]]
        for one in answer["readings"]
    ]
    over = sum(one["above"] for one in answer["readings"])
    lasting = f" after {left(answer['for_s'])}" if answer["for_s"] else ""
    verdict = f"{over} of {len(rows)} would fire{lasting}" if over else "nothing would fire"
    return [Table(READINGS, rows, empty="there is nothing that it could watch"), Line(verdict)]


@click.group()
def alerts() -> None:
    """Alerts: rules that call people, silences, and what happened."""


@alerts.command("list")
@prints
@with_client
def list_(client: "Client", out: Output) -> None:
    """Alerts that fire or wait for their time, and silences."""
    answer = client.get("/v1/alerts")
    out.show(answer, lambda: alerts_view(answer))


@alerts.command()
@click.option("--count", type=click.IntRange(1, 10_000), default=50, show_default=True, help="So many.")
@prints
@with_client
def history(client: "Client", *, count: int, out: Output) -> None:
    """What fired and was over, the newest first."""
    answer = client.get("/v1/alerts/history", count=count)

    def view() -> list[Block]:
        rows = [
            [
                clock(one["at"]), one["change"], one["severity"], one["rule"], one["what"],
                one["why"] or ("silenced" if one["silenced"] else ""),
            ]
            for one in answer["history"]
        ]  # fmt: skip
        return [Table(HISTORY, rows, empty="nothing has fired")]

    out.show(answer, view)


@alerts.command()
@prints
@with_client
def rules(client: "Client", out: Output) -> None:
    """All rules: of valkyrie.yaml, added, and shipped."""
    answer = client.get("/v1/alerts/rules")
    out.show(answer, lambda: [Table(RULES, [rule_row(one) for one in answer["rules"]], empty="no rules")])


def tags_of(texts: tuple[str, ...]) -> dict[str, str]:
    """Raises InvalidInput."""
    tags = {}
    for text in texts:
        tag, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(f"{text[:40]!r} is no tag", "as --tag team=network", "--tag")
        tags[tag] = value
    return tags


@alerts.command(
    epilog=examples(
        "valkyrie-ctl alerts add web-drops --when drop-rate --limit web --above 1000/s --for 1m",
        "valkyrie-ctl alerts add any-drops --when drop-share --above 20% --severity error --tag team=net",
    )
)
@click.argument("name")
@click.option("--when", type=click.Choice(WHENS), required=True, metavar="KIND", help="What is watched.")
@click.option("--limit", type=LIMIT, help="Which limit; without it an alert for each.")
@click.option("--nic", type=NIC, help="Which interface; without it an alert for each.")
@click.option("--credential", metavar="NAME", help="Which credential; without it an alert for each.")
@click.option("--event", metavar="KIND", help="Which kind of note, as link.")
@click.option("--above", metavar="FIGURE", help="As 1000/s, 20% or 5m.")
@click.option("--at-least", metavar="RATE", help="Less traffic than this is not judged.")
@click.option("--for", "lasts", metavar="DURATION", help="How long without a break.")
@click.option("--clear-below", metavar="FIGURE", help="To be over; without it as --above.")
@click.option("--clear-after", metavar="DURATION", help="How long at or below, to be over.")
@click.option("--severity", type=click.Choice(SEVERITIES), help="Without it, the kind's.")
@click.option(
    "--tag", "tags", multiple=True, metavar="TAG=VALUE", help="For routes and silences; again for more."
)
@click.option("--note", default="", help="What whoever is called is to do.")
@prints
@with_client
def add(
    client: "Client", *, name: str, out: Output, tags: tuple[str, ...], lasts: str | None, **given: Any
) -> None:
    """Add rule NAME, or replace the one that was added under that name.

    `alerts test` with the same options shows first what it would say.
    """
    body = {field: value for field, value in given.items() if value}
    if lasts is not None:
        body["for"] = lasts
    if tags:
        body["tags"] = tags_of(tags)
    answer = client.put(f"/v1/alerts/rules/{name}", body)
    out.show(answer, lambda: [Table(RULES, [rule_row(answer)])])


@alerts.command(epilog=examples("valkyrie-ctl alerts remove web-drops"))
@click.argument("name", type=RuleName("added"))
@prints
@with_client
def remove(client: "Client", *, name: str, out: Output) -> None:
    """Remove rule NAME, which was added; what it had firing is resolved."""
    answer = client.delete(f"/v1/alerts/rules/{name}")
    out.show(answer, lambda: [Line(f"{name}: removed")])


@alerts.command(
    epilog=examples(
        "valkyrie-ctl alerts silence sync-lag --for 2h --why 'store is moved'",
        "valkyrie-ctl alerts silence limit=web --for 30m",
    )
)
@click.argument("match", type=Match())
@click.option("--for", "lasting", type=DURATION, required=True, help="How long, as 2h.")
@click.option("--why", default="", help="For those who wonder later.")
@prints
@with_client
def silence(client: "Client", *, match: str, lasting: str, why: str, out: Output) -> None:
    """Call nobody for the alerts of MATCH: a rule's name, TAG=VALUE, or * for all.

    They are in the list and the history all the same. What still fires at the end is told then.
    """
    answer = client.put("/v1/alerts/silences", {"match": match, "for": lasting, "why": why})
    until = clock(answer["until"])
    out.show(answer, lambda: [Line(f"{match}: silenced until {until}; {answer['covers']} firing")])


@alerts.command(epilog=examples("valkyrie-ctl alerts unsilence limit=web"))
@click.argument("match", type=Silenced())
@prints
@with_client
def unsilence(client: "Client", *, match: str, out: Output) -> None:
    """End the silence of MATCH."""
    answer = client.delete("/v1/alerts/silences", match=match)
    out.show(answer, lambda: [Line(f"{match}: no longer silenced")])


@alerts.command(
    epilog=examples(
        "valkyrie-ctl alerts test sync-lag", "valkyrie-ctl alerts test --when drop-rate --above 500/s"
    )
)
@click.argument("name", type=RuleName(), required=False)
@click.option("--when", type=click.Choice(WHENS), metavar="KIND", help="What is watched.")
@click.option("--limit", type=LIMIT, help="Which limit; without it each.")
@click.option("--nic", type=NIC, help="Which interface; without it each.")
@click.option("--credential", metavar="NAME", help="Which credential; without it each.")
@click.option("--event", metavar="KIND", help="Which kind of note.")
@click.option("--above", metavar="FIGURE", help="As 1000/s, 20% or 5m.")
@click.option("--at-least", metavar="RATE", help="Less traffic than this is not judged.")
@prints
@with_client
def test(client: "Client", *, name: str | None, out: Output, **given: str | None) -> None:
    """What rule NAME would say now, or a rule of these options that was not added yet."""
    if (name is None) == (given["when"] is None):
        raise InvalidInput("which rule?", "give its NAME, or --when and what goes with it")
    answer = client.get("/v1/alerts/test", name=name, **{field: given[field] for field in TEST_FIELDS})
    out.show(answer, lambda: test_view(answer))
