# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201 - it says why nothing was written
"""docs/images/demo.svg, drawn from a real run of the demo: `sudo .venv/bin/python docs/images/demo.py`.

Nothing is written unless every limit admitted what it must.
"""

import io
import re
import sys
from contextlib import ExitStack
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
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
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    rows = draw(console)
    if not all(row.ok for row in rows):
        print(
            "error: a limit deviates; nothing was written\nhint: run it on an idle machine", file=sys.stderr
        )
        return 1
    # The viewer's own fonts: a picture that fetches others shows none where that is forbidden.
    style = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    style = style.replace("Fira Code, monospace", "monospace")
    PICTURE.write_text(console.export_svg(title="sudo ./appliance demo", code_format=style))
    return 0


if __name__ == "__main__":
    sys.exit(main())
