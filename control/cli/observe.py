# SPDX-License-Identifier: Apache-2.0
"""limits suggest, limits compare: what rates and bursts would do to the traffic that there is."""

from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from valkyrie.control.cli.limits import known_limit, path_of
from valkyrie.control.cli.options import DURATION, KEY, LIMIT, RATE, examples, prints, with_client
from valkyrie.control.cli.output import Block, Column, Line, Output, Table, say_if_cut

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client
    from valkyrie.control.suggest.analysis import Estimate, Outcome, Seen
    from valkyrie.control.suggest.gathered import Gathered

COLUMNS = (
    Column(""),
    Column("RATE", right=True),
    Column("BURST", right=True),
    Column("DROPPED PACKETS", right=True),
    Column("OF KEYS", right=True),
    Column("OF ORDINARY KEYS' PACKETS", right=True),
)
Choice = tuple[str, str, str | None]
"""A mark, a rate and a burst as people write them."""


def gathered(client: "Client", body: dict[str, Any]) -> tuple["Gathered", dict[str, Any], dict[str, int]]:
    """What came until the time was over or Ctrl-C: records, what was observed, and the kernel's figures."""
    from valkyrie.control.suggest.gathered import Gathered

    found, observing, figures = Gathered(), dict[str, Any](), dict[str, int]()
    began = monotonic()
    try:
        for told in client.stream("/v1/observe", body):
            found.take(told)
            observing = told.get("observing", observing)
            figures = told.get("end") or told.get("figures") or figures
            if found.enough:
                break
        else:
            say_if_cut(began, body["seconds"])
    except KeyboardInterrupt:
        pass
    return found, observing, figures


def told_estimate(one: "Estimate") -> str:
    from valkyrie.control.units import format_count

    error = f" ±{format_count(round(one.error))}" if one.error >= 1 else ""
    return f"{format_count(round(one.value))}{error}"


def judged(seen: "Seen", choices: list[Choice], measure: str) -> list["Outcome"]:
    from valkyrie.control.limits import Limit
    from valkyrie.control.suggest.analysis import outcomes

    asked = [
        Limit(name="x", key="src", rate=rate, burst=burst, measure=measure)  # type: ignore[arg-type]
        for _, rate, burst in choices
    ]
    return outcomes(seen, [limit.cost for limit in asked])


def view(choices: list[Choice], results: list["Outcome"], head: str) -> list[Block]:
    rows = [
        [
            mark,
            rate,
            burst or "1 s",
            told_estimate(one.dropped),
            told_estimate(one.keys),
            f"{100 * one.ordinary:.2f} %",
        ]
        for (mark, rate, burst), one in zip(choices, results, strict=True)
    ]
    return [Line(head), Table(COLUMNS, rows, empty="")]


def answer_of(
    choices: list[Choice], results: list["Outcome"], seen: "Seen", figures: dict[str, int]
) -> dict[str, Any]:
    return {
        "keys_seen": seen.count, "packets_seen": len(seen.time), "one_key_in": seen.keys,
        "one_packet_in": seen.packets, "figures": figures,
        "choices": [
            {
                "mark": mark, "rate": rate, "burst": burst,
                "dropped": one.dropped.value, "dropped_error": one.dropped.error,
                "keys": one.keys.value, "keys_error": one.keys.error, "ordinary_share": one.ordinary,
            }
            for (mark, rate, burst), one in zip(choices, results, strict=True)
        ],
    }  # fmt: skip


def heading(seen: "Seen", figures: dict[str, int]) -> str:
    from valkyrie.control.units import format_count

    words = [f"{format_count(seen.count)} keys, {format_count(len(seen.time))} packets"]
    if seen.keys > 1:
        words.append(f"one key in {seen.keys} was looked at, so numbers of all are estimates (95 % sure)")
    if seen.packets > 1:
        words.append(f"one packet in {seen.packets}: bursts under {10 * seen.packets} packets tell little")
    if figures.get("lost"):
        words.append(f"{figures['lost']} records were lost, what came before is left out")
    return "; ".join(words)


@click.command(
    epilog=examples(
        "valkyrie-ctl limits suggest --match 'proto udp dport 53' --key src/32 --for 10m",
        "valkyrie-ctl limits suggest --key src --measure ip --for 1m -o json",
    )
)
@click.option("--match", default="", metavar="MATCH", help="Which packets; without it, all of them.")
@click.option("--key", required=True, type=KEY, metavar="KEY", help="Who would get a bucket.")
@click.option(
    "--measure", type=click.Choice(["packets", "ip", "frame"]), default="packets", show_default=True,
    help="What a token would be: a packet, a byte of the IP packet, or of the frame.",
)  # fmt: skip
@click.option("--for", "time", type=DURATION, default="10m", show_default=True, help="Watch so long.")
@prints
@with_client
def suggest(client: "Client", *, match: str, key: str, measure: str, time: str, out: Output) -> None:
    """Watch traffic, and propose a rate and a burst that ordinary keys would not feel.

    Nothing is dropped for it. Ctrl-C ends it with what was seen so far. The tightest choice that would have
    dropped less than 0.1 % of the packets of ordinary keys (all but the busiest hundredth) is marked.
    """
    from valkyrie.control.suggest.analysis import SECONDS, proposed, rates
    from valkyrie.control.units import parse_duration

    body = {"match": match, "key": key, "measure": measure, "seconds": parse_duration(time) / 1e9}
    found, _, figures = gathered(client, body)
    seen = found.seen()
    unit = "" if measure == "packets" else "B"
    choices: list[Choice] = [
        ("", f"{rate}{unit}/s", f"{rate * seconds}{unit}") for rate in rates(seen) for seconds in SECONDS
    ]
    results = judged(seen, choices, measure) if seen.count else []
    chosen = proposed(results)
    if chosen is not None:
        choices[chosen] = ("proposed", *choices[chosen][1:])
    head = heading(seen, figures) if seen.count else "no packet matched"
    out.show(answer_of(choices, results, seen, figures), lambda: view(choices, results, head))


@click.command(epilog=examples("valkyrie-ctl limits compare web --rate 500/s --burst 1000 --for 5m"))
@click.argument("name", type=LIMIT)
@click.option("--rate", required=True, type=RATE, metavar="RATE", help="The rate to try.")
@click.option("--burst", metavar="SIZE", help="The burst to try; without it, one second's worth.")
@click.option("--for", "time", type=DURATION, default="5m", show_default=True, help="Watch so long.")
@prints
@with_client
def compare(client: "Client", *, name: str, rate: str, burst: str | None, time: str, out: Output) -> None:
    """Try another rate beside that of limit NAME, on the same packets. Nothing changes.

    What either would have dropped alone: other limits, overrides and buckets that were not full do not count.
    """
    from valkyrie.control.limits import Limit
    from valkyrie.control.units import parse_duration

    with known_limit(client, name):
        live = client.get(path_of(name))
        Limit(name="x", key="src", rate=rate, burst=burst, measure=live["measure"])
        body = {"limit": name, "seconds": parse_duration(time) / 1e9}
        found, observing, figures = gathered(client, body)
    observing = {**live, **observing}  # Ctrl-C may come before anything was told
    seen = found.seen()
    choices: list[Choice] = [("live", observing["rate"], observing["burst"]), ("tried", rate, burst)]
    results = judged(seen, choices, observing["measure"])
    head = heading(seen, figures) if seen.count else "no packet matched"
    out.show(answer_of(choices, results, seen, figures), lambda: view(choices, results, head))
