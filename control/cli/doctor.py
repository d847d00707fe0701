# SPDX-License-Identifier: Apache-2.0
"""doctor: does this host have what it takes, and what to mend."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from valkyrie.control.cli.exits import CHECK_FAILED
from valkyrie.control.cli.options import prints, with_client
from valkyrie.control.cli.output import Block, Column, Line, Output, Table
from valkyrie.control.errors import PermissionRefused, Unavailable

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

COLUMNS = (Column("CHECK"), Column("STATUS", styled=True), Column("FOUND"), Column("WHAT TO DO"))


def local_checks() -> list[dict[str, Any]]:
    """The checks run in this process, for a host whose daemon does not answer."""
    from dataclasses import asdict

    from valkyrie.control.dataplane.doctor import examine

    return [asdict(check) for check in examine()]


def examined(client: "Client") -> list[dict[str, Any]]:
    """The daemon's checks, or without it those of this process; the first says how the daemon is."""
    try:
        checks: list[dict[str, Any]] = client.get("/v1/doctor")["checks"]
    except (Unavailable, PermissionRefused) as error:
        from valkyrie.control.cli.client import START

        mend = START if isinstance(error, Unavailable) else error.hint
        missing = {"name": "valkyried", "status": "fail", "found": error.what, "mend": mend}
        return [missing, *local_checks()]
    return [{"name": "valkyried", "status": "ok", "found": f"answers at {client.path}", "mend": ""}, *checks]


def view(checks: Sequence[dict[str, Any]]) -> list[Block]:
    rows = [[check["name"], check["status"], check["found"], check["mend"]] for check in checks]
    bad = sum(check["status"] == "fail" for check in checks)
    end = f"{bad} of {len(checks)} checks fail" if bad else "nothing has to be mended"
    return [Table(COLUMNS, rows), Line(end, "red" if bad else "green")]


@click.command()
@prints
@with_client
@click.pass_context
def doctor(ctx: click.Context, client: "Client", out: Output) -> None:
    """Check kernel, BCC, drivers, queues and offloads; works without the daemon too."""
    checks = examined(client)
    out.show({"checks": checks}, lambda: view(checks))
    if any(check["status"] == "fail" for check in checks):
        ctx.exit(CHECK_FAILED)
