# SPDX-License-Identifier: Apache-2.0
"""limits explain: what the loaded program itself would say of a packet."""

from typing import TYPE_CHECKING, Any

import click

from valkyrie.control.cli.options import examples, prints, with_client
from valkyrie.control.cli.output import Block, Column, Line, Output, Table

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

COLUMNS = (
    Column("LIMIT"),
    Column("ACTION", styled=True),
    Column("MATCHES", styled=True),
    Column("CONFORMS", styled=True),
    Column("LEFT", right=True),
    Column("BURST", right=True),
    Column("RETRY AFTER", right=True),
)


def row(limit: dict[str, Any]) -> list[str]:
    """A limit's answer; what it has left means nothing when it does not match."""
    from valkyrie.control.units import format_count, format_duration

    if not limit["matched"]:
        return [limit["name"], limit["action"], "no", "", "", "", ""]
    retry = limit["retry_after_ns"]
    on = ", ".join(str(one["cpu"]) for one in limit["leased"] if one["enough"])
    return [
        limit["name"],
        limit["action"],
        "yes",
        "yes" if limit["conforms"] else f"on CPU {on}" if on else "no",
        format_count(limit["tokens_left"]),
        format_count(limit["burst"]),
        format_duration(retry, 2) if retry else "",
    ]


def view(answer: dict[str, Any]) -> list[Block]:
    verdict = answer["verdict"]
    lines: list[Block] = [Line(f"{verdict}: {answer['reason']}", "green" if verdict == "pass" else "red")]
    if answer["passes_on"]:
        cpus = ", ".join(map(str, answer["passes_on"]))
        lines.append(Line(f"passes on CPU {cpus}, which holds tokens that were bought ahead", "yellow"))
    return [*lines, Table(COLUMNS, [row(limit) for limit in answer["limits"]], empty="no limits are set")]


@click.command(epilog=examples("valkyrie-ctl limits explain 'src 198.51.100.7 proto tcp dport 443 syn'"))
@click.argument("packet", nargs=-1, required=True)
@prints
@with_client
def explain(client: "Client", *, packet: tuple[str, ...], out: Output) -> None:
    """Ask the loaded program which limits match PACKET and what each would say; takes no tokens.

    PACKET is written as a match is, with one value a word.
    """
    answer = client.post("/v1/explain", {"packet": " ".join(packet)})
    out.show(answer, lambda: view(answer))
