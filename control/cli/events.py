# SPDX-License-Identifier: Apache-2.0
"""events: follow what the daemon tells, one line each."""

import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from valkyrie.control.cli.options import prints, with_client
from valkyrie.control.cli.output import Line, Output
from valkyrie.control.errors import Unavailable

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

RETRY_SECONDS = 0.5


def end(address: str, port: int) -> str:
    """An address with its port; port 0 means there is none."""
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def line(event: dict[str, Any]) -> Line:
    """An event in one line; a packet's fields where it is about a packet, else what it says."""
    clock = datetime.fromtimestamp(event["time"], UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    if "src" not in event:
        return Line(f"{clock}  {event.get('kind', 'note'):<8} {event.get('what', '')}".rstrip(), "yellow")
    verdict = "shadow" if event.get("shadow") else "drop"
    words = [
        clock,
        f"{verdict:<8}",
        event.get("limit") or event["reason"],
        f"{end(event['src'], event['sport'])} > {end(event['dst'], event['dport'])}",
        event["protocol"],
        f"{event['length']} B",
        f"on {event['nic']}",
        *([f"key {event['key']}"] if event.get("key") else []),
    ]
    return Line("  ".join(words), "yellow" if verdict == "shadow" else "")


def follow(
    client: "Client", say: Callable[[str], None], wait: Callable[[float], None]
) -> Generator[dict[str, Any], None, None]:
    """Events for ever; raises Unavailable only when there is no daemon to begin with."""
    told = client.stream("/v1/events")
    while True:
        yield from told
        say("valkyried went away; waiting for it to come back")
        told = reopened(client, wait)
        say("valkyried is back")


def reopened(client: "Client", wait: Callable[[float], None]) -> Iterator[dict[str, Any]]:
    """The stream of a daemon that was away, as soon as there is one again."""
    while True:
        wait(RETRY_SECONDS)
        try:
            return client.stream("/v1/events")
        except Unavailable:
            continue


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The same as -o json: a line of JSON for each event.")
@click.option(
    "--last", type=click.IntRange(1, 1000), metavar="N", help="Print the last N that happened, and end."
)
@prints
@with_client
def events(client: "Client", *, as_json: bool, last: int | None, out: Output) -> None:
    """Follow dropped packets and what else happens, until Ctrl-C."""
    printer = Output("json") if as_json else out
    if last is not None:
        answer = client.get("/v1/events/last", count=last)
        for event in answer["events"]:
            printer.item(event, partial(line, event))
        if answer["lost"] or answer["limited"]:
            told = f"{answer['lost']} lost and {answer['limited']} held back by events.rate"
            click.echo(f"drops since the counters began that were not told: {told}", err=True)
        return

    def say(text: str) -> None:
        click.echo(text, err=True)

    for event in follow(client, say, time.sleep):
        printer.item(event, partial(line, event))
