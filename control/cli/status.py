# SPDX-License-Identifier: Apache-2.0
"""status: what is attached, how full the table is, what packets met."""

from typing import TYPE_CHECKING, Any

import click

from valkyrie.control.cli.options import prints, with_client
from valkyrie.control.cli.output import Block, Column, Facts, Output

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

NICS = (Column("NIC"), Column("STATE", styled=True), Column("MODE"), Column("PROTECTED"), Column("NOTE"))
REASONS = (
    Column("VERDICT", styled=True),
    Column("REASON"),
    Column("PACKETS", right=True),
    Column("BYTES", right=True),
)


@click.command()
@prints
@with_client
def status(client: "Client", out: Output) -> None:
    """What is attached, how full the table is, what happened to packets."""
    answer = client.get("/v1/status")
    out.show(answer, lambda: view(answer))


def view(answer: dict[str, Any]) -> list[Block]:
    return [Facts([(name, str(value)) for name, value in answer.items()])]
