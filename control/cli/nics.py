# SPDX-License-Identifier: Apache-2.0
"""attach, confirm, detach: the program and the NICs it serves."""

import os
from typing import TYPE_CHECKING, Any

import click

from valkyrie.control.cli.options import DURATION, NIC, examples, prints, with_client
from valkyrie.control.cli.output import Block, Line, Output
from valkyrie.control.cli.protect import ssh_client
from valkyrie.control.cli.segment import segment

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client


def path_of(nic: str, verb: str = "") -> str:
    return f"/v1/nics/{segment(nic)}{verb}"


def protected(given: tuple[str, ...], session: str | None) -> list[str]:
    """What to protect: the prefixes given, then the session's address unless it is there already."""
    return list(dict.fromkeys([*given, *([session] if session else [])]))


def attached_view(nic: str, answer: dict[str, Any], session: str | None, confirm: str | None) -> list[Block]:
    mode = answer.get("mode", "")
    blocks: list[Block] = [Line(f"{nic}: attached, {mode} mode", "green")]
    if answer.get("note"):  # why another mode than the one that was there, or that was asked for
        blocks.append(Line(answer["note"], "yellow"))
    if mode == "generic":
        text = "generic mode decides after the kernel has built its packet buffers: as exact, but slower"
        blocks.append(Line(text, "yellow"))
    if session:
        blocks.append(Line(f"{session} is protected: your SSH session comes from there"))
    if confirm:
        text = f"detaches by itself after {confirm} unless you run: valkyrie-ctl confirm {nic}"
        blocks.append(Line(text, "yellow"))
    return blocks


@click.command(epilog=examples("valkyrie-ctl attach eth0 --confirm 60s"))
@click.argument("nic", type=NIC)
@click.option(
    "--mode",
    type=click.Choice(["auto", "native", "generic"]),
    default="auto",
    show_default=True,
    help="native: in the driver. generic: for drivers without XDP. auto: native where possible.",
)
@click.option(
    "--confirm",
    type=DURATION,
    metavar="TIME",
    help="Detach after this time unless `valkyrie-ctl confirm NIC` is run.",
)
@click.option("--replace", is_flag=True, help="Replace somebody else's XDP program.")
@click.option(
    "--protect",
    multiple=True,
    metavar="PREFIX",
    help="Never drop packets from here; may be repeated. The address of your SSH session is always added.",
)
@prints
@with_client
def attach(
    client: "Client",
    *,
    nic: str,
    mode: str,
    confirm: str | None,
    replace: bool,
    protect: tuple[str, ...],
    out: Output,
) -> None:
    """Police the packets that arrive at NIC."""
    session = ssh_client(os.environ, os.getpid())
    body = {"mode": mode, "confirm": confirm, "replace": replace, "protect": protected(protect, session)}
    answer = client.post(path_of(nic, "/attach"), body)
    out.show(answer, lambda: attached_view(nic, answer, session, confirm))


@click.command()
@click.argument("nic", type=NIC)
@prints
@with_client
def confirm(client: "Client", *, nic: str, out: Output) -> None:
    """Keep NIC attached after `attach --confirm`."""
    answer = client.post(path_of(nic, "/confirm"))
    out.show(answer, lambda: [Line(f"{nic}: stays attached", "green")])


@click.command()
@click.argument("nic", type=NIC)
@prints
@with_client
def detach(client: "Client", *, nic: str, out: Output) -> None:
    """Stop policing NIC; limits and buckets stay."""
    answer = client.delete(path_of(nic))
    out.show(answer, lambda: [Line(f"{nic}: detached, its packets pass unpoliced", "yellow")])
