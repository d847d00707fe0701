# SPDX-License-Identifier: Apache-2.0
"""limits apply and export: the whole policy as one document."""

import json
from typing import TYPE_CHECKING, Any, TextIO

import click

from valkyrie.control.cli.document import in_file, load, read
from valkyrie.control.cli.options import prints, with_client
from valkyrie.control.cli.output import Block, Line, Output
from valkyrie.control.errors import InvalidInput

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


def shown(value: object) -> str:
    return "none" if value in (None, "") else str(value)


def diff_lines(diff: list[dict[str, Any]]) -> list[Line]:
    """A line for each thing added, removed or changed, and under it the fields that change."""
    lines = []
    for entry in diff:
        sign, style = SIGNS[entry["change"]]
        lines.append(Line(f"{sign} {entry['kind']} {entry['name']}", style))
        for field, (old, new) in entry.get("fields", {}).items():
            lines.append(Line(f"    {field}: {shown(old)} -> {shown(new)}", style))
    return lines


def applied_view(answer: dict[str, Any], dry_run: bool) -> list[Block]:
    diff = answer["diff"]
    if not diff:
        return [Line("nothing to change")]
    kinds = [entry["change"] for entry in diff]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in SIGNS if kind in kinds)
    end = f"would change: {counts} (dry run, nothing was changed)" if dry_run else f"applied: {counts}"
    return [*diff_lines(diff), Line(end)]


@click.command()
@click.option(
    "-f",
    "--file",
    required=True,
    type=click.File("r", encoding="utf-8"),
    metavar="FILE",
    help="A document as `limits export` prints it, YAML or JSON; - is standard input.",
)
@click.option(
    "--dry-run", is_flag=True, help="Show what would change, change nothing; needs only the right to look."
)
@prints
@with_client
def apply(client: "Client", *, file: TextIO, dry_run: bool, out: Output) -> None:
    """Make limits, overrides, exempt prefixes and bans those of FILE.

    All or nothing: what FILE does not name is removed, and when a word of it is wrong nothing changes.
    """
    text = read(file)
    document = load(text, file.name)
    try:
        answer = client.post("/v1/diff" if dry_run else "/v1/apply", {"document": document})
    except InvalidInput as error:
        raise in_file(error, text, file.name) from error
    out.show(answer, lambda: applied_view(answer, dry_run))


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="How to print.",
)
@with_client
def export(client: "Client", output: str) -> None:
    """Print the policy as a document for `limits apply`."""
    document = client.get("/v1/export")
    if output == "json":
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        from valkyrie.control.cli.yaml_text import as_yaml

        click.echo(as_yaml(document), nl=False)
