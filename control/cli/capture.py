# SPDX-License-Identifier: Apache-2.0
"""capture: packets with the reason of their verdict, as a pcapng file."""

import base64
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from valkyrie.control.cli.limits import known_limit
from valkyrie.control.cli.options import DURATION, LIMIT, examples, with_client
from valkyrie.control.cli.output import on_terminal, say_if_cut
from valkyrie.control.errors import InvalidInput

if TYPE_CHECKING:
    from valkyrie.control.cli.client import Client

SNAPLEN = 256


class File:
    """A pcapng file under way: interfaces are told of when their first packet comes."""

    def __init__(self, out: BinaryIO, told: str, snaplen: int) -> None:
        from importlib.metadata import version

        from valkyrie.control.capture import pcapng

        self._pcapng = pcapng
        self._out = out
        self._snaplen = snaplen
        self._nics: dict[str, int] = {}
        self.count = 0
        self._write(pcapng.section(told, f"valkyrie {version('valkyrie')}"))

    def add(self, frame: dict[str, Any]) -> None:
        nic = frame["nic"]
        if nic not in self._nics:
            self._nics[nic] = len(self._nics)
            self._write(self._pcapng.interface(nic, self._snaplen))
        data, dropped = base64.b64decode(frame["data"]), frame["verdict"] == "drop"
        where = self._nics[nic], frame["time_ns"]
        self._write(self._pcapng.packet(*where, data, frame["length"], comment(frame), dropped=dropped))
        self.count += 1

    def _write(self, block: bytes) -> None:
        """At once: the file is whole whenever somebody looks."""
        self._out.write(block)
        self._out.flush()


def comment(frame: dict[str, Any]) -> str:
    """What became of a packet, as its comment in the file."""
    limit = f" limit={frame['limit']}" if frame["limit"] else ""
    return f"verdict={frame['verdict'].replace(' ', '-')} reason={frame['reason']}{limit}"


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """The file to write, for its owner's eyes alone; `-` is standard output."""
    if path == "-":
        if on_terminal():
            raise InvalidInput(
                "a capture is no text for a terminal", "write it to a file, or to `| tshark -r -`"
            )
        yield sys.stdout.buffer
        return
    try:
        # A link that somebody laid in a shared folder must not lead root's writing elsewhere.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        file = os.fdopen(os.open(path, flags, 0o600), "wb")
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # no pipe, no device
            os.fchmod(file.fileno(), 0o600)  # one that was there keeps its mode otherwise
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror}", "choose another file", "-w") from error
    with file:
        yield file


@click.command(
    epilog=examples(
        "valkyrie-ctl capture --limit web --count 1000 -w drops.pcapng",
        "valkyrie-ctl capture --passed --src 203.0.113.0/24 --sample 100 --seconds 10m -w passed.pcapng",
    )
)
@click.option("-w", "--write", "path", required=True, metavar="FILE", help="The pcapng file; - for output.")
@click.option("--limit", type=LIMIT, metavar="NAME", help="Of this limit alone.")
@click.option("--reason", metavar="WORD", help="Of this reason alone, as limit, ban or bad_tcp.")
@click.option("--passed", is_flag=True, help="Packets that passed, not those that were dropped.")
@click.option("--src", metavar="PREFIX", help="From this prefix alone.")
@click.option(
    "--sample",
    type=click.IntRange(1, 10**9),
    default=1,
    show_default=True,
    help="One in so many, on average.",
)
@click.option(
    "--count", type=click.IntRange(1, 10**6), default=1000, show_default=True, help="End after so many."
)
@click.option("--seconds", type=DURATION, default="60s", show_default=True, help="End after this time.")
@click.option(
    "--snaplen",
    type=click.IntRange(14, SNAPLEN),
    default=SNAPLEN,
    show_default=True,
    help="Bytes of each frame, from its first on.",
)
@with_client
def capture(client: "Client", *, path: str, seconds: str, **wanted: Any) -> None:
    """Write packets that were dropped (or, with --passed, that passed) to a pcapng file.

    Also those that a shadow limit would have dropped. Each packet's comment says the verdict, its reason and
    the limit. Ctrl-C ends it; the file is whole.
    """
    from valkyrie.control.capture.filter import Filter
    from valkyrie.control.units import parse_duration

    count = wanted.pop("count")
    asked = Filter(**wanted)
    body = {**wanted, "count": count, "seconds": parse_duration(seconds) / 1e9}
    figures: dict[str, int] = {}
    began = time.monotonic()
    with known_limit(client, asked.limit or ""):
        stream = client.stream("/v1/capture", body)
    with opened(path) as out:
        file = File(out, f"valkyrie-ctl capture: {asked.sentence()}", asked.snaplen)
        try:
            for one in stream:
                if "frame" in one:
                    file.add(one["frame"])
                figures = one.get("end") or one.get("figures") or figures
            if file.count < count:
                say_if_cut(began, body["seconds"])
        except (KeyboardInterrupt, BrokenPipeError):
            pass
    click.echo(f"{file.count} packets{lost(figures)}", err=True)


def lost(figures: dict[str, int]) -> str:
    """What was wanted and is not in the file, in words."""
    told = [
        f"{figures[name]} {words}"
        for name, words in (("limited", "held back by the rate"), ("lost", "lost: read too slowly"))
        if figures.get(name)
    ]
    return "; " + ", ".join(told) if told else ""
