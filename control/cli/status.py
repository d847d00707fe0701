# SPDX-License-Identifier: Apache-2.0
"""status: what is attached, how full the table is, what packets met, whether people are told."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from valkyrie.control.cli.options import prints, with_client
from valkyrie.control.cli.output import Block, Column, Facts, Line, Output, Table

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

NICS = (Column("NIC"), Column("STATE", styled=True), Column("MODE"), Column("PROTECTS"), Column("NOTE"))
REASONS = (Column("PACKETS THAT MET"), Column("PACKETS", right=True), Column("BYTES", right=True))
UNWELL = (
    Column("NOTIFIES"),
    Column("KIND"),
    Column("STATE", styled=True),
    Column("QUEUED", right=True),
    Column("DROPPED", right=True),
    Column("DEAD", right=True),
    Column("LAST ERROR"),
)
COUNTS = ("queued", "dropped", "dead")
NS = 1_000_000_000


def nic_row(nic: Mapping[str, Any]) -> list[str]:
    """A NIC; the note says what is wrong with it, or when it will detach by itself."""
    from valkyrie.control.units import format_duration

    left = nic["confirm_left_s"]
    trial = f"detaches in {format_duration(round(left) * NS)} unless confirmed" if left is not None else ""
    state = "attached" if nic["attached"] else "waiting"
    note = nic["problem"] or trial
    return [nic["nic"], state, nic["mode"] or nic["wanted_mode"], ", ".join(nic["protect"]), note]


def nics_table(nics: Sequence[Mapping[str, Any]]) -> Table:
    empty = "no NIC is attached: nothing is limited (valkyrie-ctl attach NIC)"
    return Table(NICS, [nic_row(nic) for nic in nics], empty=empty)


def reasons_table(reasons: Mapping[str, Mapping[str, int]]) -> Table:
    """What verdicts were given for; reasons that no packet has met are left out."""
    from valkyrie.control.units import format_bytes, format_count

    rows = [
        [name.replace("_", " "), format_count(met["packets"]), format_bytes(met["bytes"])]
        for name, met in reasons.items()
        if met["packets"]
    ]
    return Table(REASONS, rows, empty="no packets yet")


def table_fill(table: Mapping[str, int]) -> str:
    from valkyrie.control.units import format_count

    share = 100 * table["live"] / table["buckets"] if table["buckets"] else 0
    return f"{format_count(table['live'])} of {format_count(table['buckets'])} buckets in use ({share:.1f} %)"


def kept(sync: Mapping[str, Any]) -> str:
    """Where the state is kept besides the kernel, and how far behind that is."""
    from valkyrie.control.units import format_count, format_duration

    if sync["state"] == "off":
        return "in no store (sync.enabled is off)"
    where = f"in {sync['store']} as {sync['name']}"
    if sync["state"] == "following":
        from valkyrie.control.cli.standby import active_text

        active = active_text(sync["standby"])
        return f"nowhere: follows {sync['name']} in {sync['store']}, active there: {active}"
    if sync["state"] == "starting":
        return f"{where}: not yet"
    behind = format_duration(max(1, round(sync["lag_s"])) * NS, 2)
    if sync["state"] == "ok":
        owed = f", {format_count(sync['owed'])} buckets to write" if sync["owed"] else ""
        return f"{where}, {behind} behind{owed}"
    return f"{where}: {sync['state']} for {behind}: {sync['problem']}"


def alerts_text(alerts: Mapping[str, Any]) -> str:
    """How many fire; what is wrong with alerts themselves stands above all else."""
    firing = alerts.get("firing", 0)
    text = f"{firing} firing" + (f", the worst {alerts['worst']}" if firing else "")
    if alerts.get("silenced"):
        text += f", {alerts['silenced']} silenced"
    return text


def notifications_text(told: Mapping[str, Any]) -> str:
    """How many ways to people there are, and what did not get through."""
    adapters = told.get("adapters", ())
    if not adapters:
        return "to nobody (valkyrie-ctl notify add)"
    texts = [f"by {len(adapters)} adapter{'s' if len(adapters) > 1 else ''}"]
    texts += [f"{told[name]} {name}" for name in ("failing", *COUNTS) if told[name]]
    texts += [f"{told['unheard']} without an adapter"] if told["unheard"] else []
    return ", ".join(texts)


def unwell_table(adapters: Sequence[Mapping[str, Any]]) -> list[Block]:
    """The adapters that people should look at; of those that do well none."""
    rows = [
        [one["name"], one["kind"], one["state"], *(str(one[name]) for name in COUNTS), one["last_error"]]
        for one in adapters
        if one["state"] == "failing" or one["dropped"] or one["dead"]
    ]
    return [Table(UNWELL, rows)] if rows else []


def facts(answer: Mapping[str, Any], now: float) -> Facts:
    from valkyrie.control.units import format_count, format_duration

    table = answer["table"]
    uptime = format_duration(max(0, round(now - answer["started"])) * NS, 2)
    pairs = [
        ("valkyried", f"{answer['version']}, pid {answer['pid']}, up {uptime}"),
        ("limits", f"{answer['limits']}, with {format_count(answer['overrides'])} overrides"),
        ("prefixes", f"{answer['exempts']} exempt, {answer['bans']} banned"),
        ("protected", ", ".join(answer["protect"]) or "nobody"),
        ("table", table_fill(table)),
        ("kept", kept(answer["sync"])),
        ("alerts", alerts_text(answer.get("alerts", {}))),
        ("notifications", notifications_text(answer.get("notifications", {}))),
    ]
    for name, meaning in (
        ("evicted_live", "evicted in use"),
        ("bans", "banned by limits"),
        ("events_lost", "events lost"),
    ):
        if table.get(name):
            pairs.append((meaning, format_count(table[name])))
    return Facts(pairs)


def view(answer: Mapping[str, Any], now: float) -> list[Block]:
    wrong: list[Block] = [
        Line(f"{part}: {problem}", "yellow")
        for part in ("alerts", "notifications")
        for problem in answer.get(part, {}).get("problems", ())
    ]
    unwell = unwell_table(answer.get("notifications", {}).get("adapters", ()))
    nics, reasons = nics_table(answer["nics"]), reasons_table(answer["reasons"])
    return [*wrong, facts(answer, now), *unwell, nics, reasons]


@click.command()
@prints
@with_client
def status(client: "Client", out: Output) -> None:
    """What is attached, how full the table is, what packets met."""
    answer = client.get("/v1/status")
    out.show(answer, lambda: view(answer, time.time()))
