# SPDX-License-Identifier: Apache-2.0
"""store migrate: moving to another store while everything goes on."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from valkyrie.control.cli.exits import CHECK_FAILED
from valkyrie.control.cli.options import examples, prints, with_client
from valkyrie.control.cli.output import Block, Column, Facts, Line, Output, Table
from valkyrie.control.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

Function = TypeVar("Function", bound=Callable[..., Any])

PATH = "/v1/store/migration"
POLL_S = 0.5
AWAY_S = 30.0  # that a daemon which restarts meanwhile is waited for
BACKENDS = ("redis", "valkey", "embedded")
DIFFERENCES = (Column("DIFFERENCE"), Column("KEYS", right=True), Column("AS"))
MEANINGS: Mapping[str, str] = {
    "none": "no store is being migrated",
    "copying": "decides; the other is told and filled",
    "switching": "decides, and the other must agree",
    "cutover": "decides; the other is told",
    "cleaning": "decides; the other is being emptied",
    "returning": "decides, and the other must agree",
    "aborting": "decides; the other is being emptied",
}


def phase_text(answer: Mapping[str, Any]) -> str:
    phase = answer["phase"]
    if phase == "none":
        return MEANINGS[phase]
    ahead = phase in ("cutover", "cleaning", "returning")
    return f"{phase}: {answer['target' if ahead else 'source']} {MEANINGS[phase]}"


def progress_text(answer: Mapping[str, Any]) -> str:
    keys = f"{answer['done']} of {answer['total']} keys" if answer["total"] else f"{answer['done']} keys"
    text = f"{answer['percent']:.0f} %, {keys}"
    if answer["doing"]:
        text = f"{answer['doing']} {text}, {answer['keys_a_second']:.0f} keys/s"
    return text


def report_text(report: Mapping[str, Any]) -> str:
    compared = f"{report['buckets']} buckets, {report['values']} values, {report['documents']} documents"
    found = sum(report["differences"].values())
    mended = f", {report['repaired']} of them mended" if report["repaired"] else ""
    return f"{compared}: " + (f"{found} differ{mended}" if found else "no difference")


def next_text(answer: Mapping[str, Any]) -> str:
    step = answer["next"]
    if not step:
        return "wait until this is done" if answer["phase"] != "none" else "-"
    return f"valkyrie-ctl store migrate {step}"


def status_view(answer: Mapping[str, Any]) -> list[Block]:
    pairs = [("phase", phase_text(answer))]
    if answer["phase"] != "none":
        pairs.append(("from", f"{answer['source']} to {answer['target']}"))
        pairs.append(("asked for", answer["asked"] or "-"))
        pairs.append(("progress", progress_text(answer)))
        pairs.append(("errors", str(answer["errors"])))
    if answer["report"] is not None:
        pairs.append(("compared", report_text(answer["report"])))
    if answer["problem"]:
        pairs.append(("problem", answer["problem"]))
    if answer["ended"]:
        pairs.append(("ended", answer["ended"]))
    pairs.append(("next", next_text(answer)))
    return [Facts(pairs), *change_view(answer), *report_view(answer["report"])]


def change_view(answer: Mapping[str, Any]) -> list[Block]:
    if not answer["change"]:
        return []
    lines = [Line(f"  {line}") for line in answer["change"]]
    return [Line("change these lines of valkyrie.yaml, on every host, before `cleanup`:", "yellow"), *lines]


def report_view(report: Mapping[str, Any] | None) -> list[Block]:
    if report is None or not report["differences"]:
        return []
    rows = [
        [kind, str(count), ", ".join(report["examples"].get(kind, ()))]
        for kind, count in sorted(report["differences"].items())
    ]
    return [Table(DIFFERENCES, rows)]


def settled(answer: Mapping[str, Any]) -> bool:
    """Whether nothing is under way."""
    return answer["phase"] == "none" or (not answer["asked"] and bool(answer["next"]))


def follow(client: "Client", answer: Any, *, wait: bool) -> Any:
    """Wait until what was asked for is done, and show how far it is. A problem is shown, and not waited for
    less: the daemon tries again.
    """
    shown = ""
    heard = time.monotonic()
    while wait and not settled(answer):
        text = answer["problem"] or f"{answer['phase']}: {progress_text(answer)}"
        if text != shown:
            print(text, file=sys.stderr, flush=True)
            shown = text
        time.sleep(POLL_S)
        try:
            answer = client.get(PATH)
            heard = time.monotonic()
        except Unavailable:
            if time.monotonic() - heard > AWAY_S:
                raise
    return answer


waits = click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it is done.")


def forced(text: str) -> Callable[[Function], Function]:
    return click.option("--force", is_flag=True, help=text)


@click.group()
def migrate() -> None:
    """Move to another store while everything goes on: start, validate, cutover, cleanup; or abort."""


@migrate.command(epilog=examples("valkyrie-ctl store migrate start redis valkey"))
@click.argument("source", type=click.Choice(BACKENDS))
@click.argument("target", type=click.Choice(BACKENDS))
@click.option("--overwrite", is_flag=True, help="Delete what TARGET holds of this appliance.")
@waits
@prints
@with_client
def start(client: "Client", *, source: str, target: str, overwrite: bool, wait: bool, out: Output) -> None:
    """Have TARGET told all that happens in SOURCE, the store in use, and copy what is there."""
    body = {"source": source, "target": target, "overwrite": overwrite}
    answer = follow(client, client.post(f"{PATH}/start", body), wait=wait)
    out.show(answer, lambda: status_view(answer))


@migrate.command()
@prints
@with_client
def status(client: "Client", out: Output) -> None:
    """How far it is, what differs, and what to do next."""
    answer = client.get(PATH)
    out.show(answer, lambda: status_view(answer))


@migrate.command()
@click.option("--repair", is_flag=True, help="Bring the other store to what the one in use holds.")
@waits
@prints
@with_client
@click.pass_context
def validate(ctx: click.Context, client: "Client", *, repair: bool, wait: bool, out: Output) -> None:
    """Compare both stores, key by key. Ends with 1 when they differ and that was not mended."""
    answer = follow(client, client.post(f"{PATH}/validate", {"repair": repair}), wait=wait)
    out.show(answer, lambda: status_view(answer))
    report = answer["report"]
    if wait and report is not None and sum(report["differences"].values()) > report["repaired"]:
        ctx.exit(CHECK_FAILED)


@migrate.command()
@forced("Also when the stores were not compared, or differ.")
@waits
@prints
@with_client
def cutover(client: "Client", *, force: bool, wait: bool, out: Output) -> None:
    """Have the target decide from now on; the source is still told, so that `abort` is possible."""
    answer = follow(client, client.post(f"{PATH}/cutover", {"force": force}), wait=wait)
    out.show(answer, lambda: status_view(answer))


@migrate.command()
@forced("Also while the settings name the source, or when it cannot be reached and stays as it is.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@waits
@prints
@with_client
def cleanup(client: "Client", *, force: bool, yes: bool, wait: bool, out: Output) -> None:
    """Delete what the source holds of this appliance, and end the migration. There is no way back."""
    confirm(yes, "Delete all that the source holds of this appliance?")
    answer = follow(client, client.post(f"{PATH}/cleanup", {"force": force}), wait=wait)
    out.show(answer, lambda: status_view(answer))


@migrate.command()
@forced("Also without what the target alone knows, or when it cannot be reached and stays as it is.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@waits
@prints
@with_client
def abort(client: "Client", *, force: bool, yes: bool, wait: bool, out: Output) -> None:
    """Go back to the source, and delete what was copied to the target."""
    confirm(yes, "Go back to the source, and delete what was copied?")
    answer = follow(client, client.post(f"{PATH}/abort", {"force": force}), wait=wait)
    out.show(answer, lambda: status_view(answer))


def confirm(yes: bool, question: str) -> None:
    """Raises InvalidInput where nobody can be asked, and when the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput("this deletes keys", "give --yes")
    if not click.confirm(question, err=True):
        raise InvalidInput("nothing was done")
