# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201 - it says why nothing was written
"""docs/images/demo.svg, drawn from a real run of the demo: `sudo .venv/bin/python docs/images/demo.py`.

Nothing is written unless every limit admitted what it must.
"""

import sys
from contextlib import ExitStack
from pathlib import Path

import terminal
from rich.console import Console

from valkyrie.control.lab import demo, view
from valkyrie.control.lab.report import Row
from valkyrie.control.lab.scenario import FLOOD, STREAMS

PICTURE = Path(__file__).with_suffix(".svg")
WIDTH = 112


def draw(console: Console) -> list[Row]:
    """Run the demo and draw its commands, one live table of each part, and what came of it."""
    with ExitStack() as stack:
        lab = demo.build(stack)
        demo.say(console, "attach", demo.NIC, lab=lab)
        for stream in (*STREAMS, FLOOD):
            if stream.limit:
                demo.say(console, "limits", "set", stream.name, *stream.limit, lab=lab)
        rows: list[Row] = []
        for title, streams, seconds in (
            ("All at once", STREAMS, demo.MIXED_S),
            ("A flood", [FLOOD], demo.FLOOD_S),
        ):
            seen: list[tuple[str, list[view.Pace]]] = []
            rows += demo.run(lab, streams, seconds, title, lambda *now, to=seen: to.append(now))
            console.print(view._live_table(*seen[len(seen) // 2]))  # noqa: SLF001 - as the live display draws it
    view.final(console, rows)
    return rows


def main() -> int:
    """Exit status 1 if something deviates; then the picture stays as it was."""
    console = terminal.recorder(WIDTH)
    rows = draw(console)
    if not all(row.ok for row in rows):
        print(
            "error: a limit deviates; nothing was written\nhint: run it on an idle machine", file=sys.stderr
        )
        return 1
    terminal.write(console, "sudo ./appliance demo", PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
