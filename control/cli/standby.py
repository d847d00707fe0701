# SPDX-License-Identifier: Apache-2.0
"""standby: follow another appliance in the store that both reach, and take over from it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from valkyrie.control.cli.options import DURATION, examples, prints, with_client
from valkyrie.control.cli.output import Block, Facts, Line, Output
from valkyrie.control.errors import InvalidInput

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

NS = 1_000_000_000


def duration(seconds: float) -> str:
    from valkyrie.control.units import format_duration

    return format_duration(max(0, round(seconds)) * NS, 2)


def role_text(told: Mapping[str, Any]) -> str:
    """What this appliance is."""
    if told["role"] == "follower":
        return f"follows {told['name']}"
    if told["role"] == "successor":
        return f"active as {told['name']}, whose place it has taken"
    return f"active as {told['own_name']}, a standby of nobody"


def active_text(told: Mapping[str, Any]) -> str:
    """Who is active under the name that is followed."""
    if not told["sees_store"]:
        return "unknown: the store is not seen"
    if told["active"] is None:
        return "nobody"
    return f"{told['active']}, heard of {told['heard_s']:.1f} s ago"


def facts(told: Mapping[str, Any]) -> Facts:
    pairs = [("role", role_text(told))]
    if told["role"] == "follower":
        pairs.append(("active", active_text(told)))
        after = told["after_s"]
        pairs.append(
            ("takes over", "when told to" if after is None else f"after {duration(after)} of silence")
        )
        age = told["policy_age_s"]
        pairs.append(("policy", "not had since start" if age is None else f"as of {duration(age)} ago"))
    if told["role"] != "own":
        pairs.append(("own name", told["own_name"]))
    if told["aside"]:
        pairs.append(("policy from before", told["aside"]))
    if told["restored"] is not None:
        pairs.append(("taken over", f"{told['restored']} buckets in {told['restored_s']:.1f} s"))
    if told["problem"]:
        pairs.append(("problem", told["problem"]))
    return Facts(pairs)


def view(told: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = [facts(told)]
    if told["fenced"]:
        name = told["name"] or told["own_name"]
        what = f"the store refuses what this appliance writes as {name}; it enforces what it has"
        blocks += [Line(what, "red"), Line(f"valkyrie-ctl standby follow {name}   has it follow", "yellow")]
    return blocks


@click.group()
def standby() -> None:
    """Standby: follow another appliance in the store, and take over with its limits and buckets."""


@standby.command(
    epilog=examples("valkyrie-ctl standby follow edge-1", "valkyrie-ctl standby follow edge-1 --manual")
)
@click.argument("name")
@click.option(
    "--after",
    type=DURATION,
    metavar="TIME",
    help="Take over after so long a silence, from 5s to 1h; 10s without it.",
)
@click.option("--manual", is_flag=True, help="Take over only by `valkyrie-ctl standby take-over`.")
@click.option("--wait", is_flag=True, help="Also when nothing is kept under that name yet.")
@prints
@with_client
def follow(client: "Client", name: str, *, after: str | None, manual: bool, wait: bool, out: Output) -> None:
    """Follow the appliance NAME: its limits are in force here, and it cannot be changed from here.

    The own limits are replaced; they are put aside in a file that `status` names.
    """
    if manual and after is not None:
        raise InvalidInput("by itself or by hand?", "give --after or --manual", "--manual")
    body = {"name": name, "after": None if manual else after or "10s", "wait": wait}
    answer = client.post("/v1/standby/follow", body)
    out.show(answer, lambda: view(answer))


@standby.command(name="take-over")
@click.option("--force", is_flag=True, help="Also while the other appliance is alive; it is fenced out.")
@prints
@with_client
def take_over(client: "Client", *, force: bool, out: Output) -> None:
    """Take the place of the appliance that is followed: its name, limits, counters and buckets."""
    answer = client.post("/v1/standby/take-over", {"force": force})
    out.show(answer, lambda: view(answer))


@standby.command()
@prints
@with_client
def status(client: "Client", out: Output) -> None:
    """Whom this appliance follows, and how that one does."""
    answer = client.get("/v1/standby")
    out.show(answer, lambda: view(answer))


@standby.command()
@prints
@with_client
def end(client: "Client", out: Output) -> None:
    """Be no standby any more: under the own name again, with the limits as they are."""
    answer = client.post("/v1/standby/end", {})
    out.show(answer, lambda: view(answer))
