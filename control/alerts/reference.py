# SPDX-License-Identifier: Apache-2.0
"""The catalogue in docs/alerts.md, from the code, between its two marks:
`python -m valkyrie.control.alerts.reference docs/alerts.md`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from valkyrie.control.alerts.kinds import KINDS
from valkyrie.control.alerts.rules import SHIPPED, Rule, RuleBody

BEGIN = "<!-- catalogue: made by `python -m valkyrie.control.alerts.reference docs/alerts.md` -->"
END = "<!-- end of the catalogue -->"
ALWAYS = {"fact": "", "rate": "must be given", "share": "must be given", "time": "must be given"}


def catalogue() -> str:
    """The tables of the kinds and of the shipped rules."""
    lines = [
        "| `when` | fires while | for each | `above` | `at_least` | `for` | `clear_after` | severity |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for word, kind in KINDS.items():
        above = f"`{kind.above}`" if kind.above else ALWAYS[kind.unit]
        floor = f"`{kind.at_least}`" if kind.at_least else ""
        lasts = "" if kind.moment else f"`{kind.lasts}`"
        lines.append(
            f"| `{word}` | {kind.meaning} | {kind.subject} | {above} | {floor} | {lasts} | "
            f"`{kind.clear_after}` | {kind.severity} |"
        )
    lines += ["", "| field of a rule | meaning |", "|---|---|"]
    for name, field in {"name": Rule.model_fields["name"], **RuleBody.model_fields}.items():
        lines.append(f"| `{field.alias or name}` | {field.description} |")
    names = ", ".join(f"`{rule.name}`" for rule in SHIPPED)
    return "\n".join([*lines, "", f"On without any configuration, each named as its `when`: {names}."])


def with_catalogue(page: str) -> str:
    """The page with the catalogue of this code."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{catalogue()}\n\n{END}{after}"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(with_catalogue(target.read_text()))
