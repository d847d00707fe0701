# SPDX-License-Identifier: Apache-2.0
"""audit: who changed what."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from valkyrie.control.cli.options import prints, with_client
from valkyrie.control.cli.output import Block, Column, Output, Table

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

COLUMNS = (Column("WHEN"), Column("WHO"), Column("DID"), Column("TO"), Column("HOW"))


def moment(seconds: float) -> str:
    """Wall clock seconds as local time with its offset."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S%z")


def details(value: object) -> str:
    """Fields of a change as name=value."""
    if not isinstance(value, dict):
        return str(value or "")
    return " ".join(f"{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in value.items())


def row(entry: dict[str, Any]) -> list[str]:
    return [moment(entry["at"]), entry["user"], entry["action"], entry["target"], details(entry["detail"])]


@click.command()
@click.option(
    "--count", type=click.IntRange(1, 10_000), default=50, show_default=True, help="The newest so many."
)
@prints
@with_client
def audit(client: "Client", *, count: int, out: Output) -> None:
    """Who changed what, the newest first."""
    answer = client.get("/v1/audit", count=count)

    def view() -> list[Block]:
        return [Table(COLUMNS, [row(entry) for entry in answer["audit"]], empty="no changes yet")]

    out.show(answer, view)
