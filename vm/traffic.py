#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Send traffic of a profile through a NIC and report what was answered and what was lost.

    sudo vm/traffic.py list
    sudo vm/traffic.py syn-flood --to 10.77.1.1 --nic tap1 --count 1000 --rate 500
    sudo vm/traffic.py mixed --to 10.77.1.1 --nic tap1 --flood udp-amplification --json report.json
    vm/traffic.py serve

Needs the distribution's python3 and python3-scapy (`serve` and `list`: python3 alone). Every run is
bounded in count and time, and goes to private addresses only unless --i-own-this-network is given.
Exit status: 0 done, 1 ended before its time, 2 what was asked for cannot be done.
"""

import argparse
import json
import logging
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from profiles.table import MIXED, PROFILES
from profiles.target import Builder, Target
from sending import nic, options
from sending.errors import TrafficError
from sending.ledger import Ledger, total
from sending.run import Plan, Run, packets
from sending.serve import serve

DONE, CUT_SHORT, BAD = 0, 1, 2


def main(arguments: list[str]) -> int:
    """Do what the command line says; the exit status."""
    try:
        match arguments[:1]:
            case ["list"]:
                return show_profiles()
            case ["serve"]:
                return answer(options.server(serve.__doc__ or "").parse_args(arguments[1:]))
            case []:
                options.sender(__doc__).print_help()
                return BAD
            case _:
                return send(options.sender(__doc__).parse_args(arguments))
    except TrafficError as error:
        say(f"traffic: {error}", sys.stderr)
        return BAD


def show_profiles() -> int:
    """Print the profiles."""
    for name, profile in PROFILES.items():
        say(f"{name:18} {profile.summary}")
    return DONE


def send(given: argparse.Namespace) -> int:
    """One run, and its report."""
    options.checked(given)
    nic.check(given.nic)
    builder = load(given)
    seed = secrets.randbits(63) if given.seed is None else given.seed
    stopped = on_signals()
    with nic.Wire(given.nic) as wire:
        target = aim(given, seed)
        ledger = Ledger()
        plan = Plan(given.count, given.rate, given.seconds, given.wait)
        outcome = Run(wire, target, ledger, stopped).go(plan, packets(builder, target, seed, plan.count))
    kinds = ledger.report()
    told = {
        "profile": given.profile,
        "to": str(given.to),
        "nic": given.nic,
        "seed": seed,
        "ended": outcome.ended,
        "seconds": round(outcome.seconds, 3),
        "total": total(kinds),
        "kinds": kinds,
        "frames_not_heard": outcome.missed,
    }
    report(given.json, told, in_words)
    return DONE if outcome.ended == "count" else CUT_SHORT


def load(given: argparse.Namespace) -> Builder:
    """The profile's builder. Here scapy is needed."""
    logging.getLogger("scapy").setLevel(logging.ERROR)
    try:
        if given.profile != MIXED:
            return PROFILES[given.profile].builder()
        from profiles.mixed import beside  # noqa: PLC0415 it imports scapy, which may be missing

        return beside(PROFILES[given.flood].builder(), given.share)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "scapy":
            raise
        raise TrafficError(f"{sys.executable} has no scapy; run: apt install python3-scapy") from error


def aim(given: argparse.Namespace, seed: int) -> Target:
    """From whom to whom, as the kernel would send it."""
    own, hop = nic.route(given.to, given.nic)
    return Target(
        run=seed * 0x9E3779B1 & 0xFFFFFFFF,
        src=own,
        dst=given.to,
        src_mac=nic.own_mac(given.nic),
        dst_mac=given.mac or nic.neighbour_mac(hop, given.nic),
        udp_port=given.port,
        tcp_port=given.tcp_port,
        http_port=given.http_port,
        own_port=given.own_port,
        sources=given.sources,
        dscp=given.dscp,
        length=given.length,
        vlan=given.vlan,
        outer_vlan=given.outer_vlan,
    )


def answer(given: argparse.Namespace) -> int:
    """The other side, until it is stopped or its time is over."""
    told = serve(given.address, given.port, given.seconds, on_signals(), lambda text: say(text, sys.stderr))
    report(given.json, told, lambda counts: f"{counts['arrived']} arrived, {counts['answered']} answered")
    return DONE


def on_signals() -> Callable[[], bool]:
    """Whether Ctrl-C or SIGTERM came: then a run ends and still reports."""
    noted: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: noted.append(got))
    return lambda: bool(noted)


def report(place: str | None, told: dict[str, Any], words: Callable[[dict[str, Any]], str]) -> None:
    """Write the report where it was asked for; words for people if it was not standard output."""
    text = json.dumps(told, indent=2) + "\n"
    if place == "-":
        say(text.rstrip())
        return
    if place:
        try:
            Path(place).write_text(text, encoding="utf-8")
        except OSError as error:
            raise TrafficError(f"the report cannot be written to {place}: {error.strerror}") from error
    say(words(told))


def in_words(told: dict[str, Any]) -> str:
    """A report for people."""
    way = f"{told['profile']} to {told['to']}: {told['seconds']} s"
    head = f"{way}, seed {told['seed']}, ended by {told['ended']}"
    names = ("sent", "frames", "answered", "refused", "lost", "duplicated", "reordered")
    lines = [head, f"{'kind':12}" + "".join(f"{name:>12}" for name in names)]
    for kind, counts in [*told["kinds"].items(), ("all", told["total"])]:
        cells = ("-" if counts[name] is None else counts[name] for name in names)
        lines.append(f"{kind:12}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def say(text: str, to: Any = None) -> None:
    """One piece of output, at once."""
    stream = sys.stdout if to is None else to
    stream.write(text + "\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
