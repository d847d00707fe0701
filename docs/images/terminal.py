# SPDX-License-Identifier: Apache-2.0
"""A terminal's content as a picture."""

import io
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console


def recorder(width: int) -> Console:
    """A console that only remembers what is printed on it."""
    return Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )


def write(console: Console, title: str, picture: Path) -> None:
    """Draw it with the viewer's own fonts: one that fetches others shows none where that is forbidden."""
    style = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    style = style.replace("Fira Code, monospace", "monospace")
    picture.write_text(console.export_svg(title=title, code_format=style))
