# SPDX-License-Identifier: Apache-2.0
"""docs/metrics.md from the catalogue: `python -m valkyrie.control.telemetry.reference > docs/metrics.md`."""

from __future__ import annotations

import sys

from valkyrie.control.telemetry.catalogue import GROUPS
from valkyrie.control.telemetry.metric import Metric

HEAD = """\
# Metrics

Made from the code; what they are for and how to get them: [observability](observability.md). Names and
attributes are in OpenTelemetry's form. Prometheus has `_` for the dots, the unit at the end, and `_total`
after counters: the second name. Counters of limits, packets and the table are the kernel's: they go on when
the daemon restarts, and begin at 0 after a reboot, or when a limit was deleted and is set again. The others
begin with the daemon, but for what was `ever` dropped.
"""
COLUMNS = "| metric | kind | unit | attributes | meaning |\n|---|---|---|---|---|\n"
SUFFIX = {"counter": "_total", "gauge": "", "histogram": ""}


def reference() -> str:
    """The page."""
    parts = [HEAD]
    for title, metrics in GROUPS:
        parts.append(f"## {title}\n\n{COLUMNS}" + "".join(_row(metric) for metric in metrics))
    return "\n".join(parts)


def _row(metric: Metric) -> str:
    attributes = ", ".join(f"`{name}`" for name in metric.attributes) or "none"
    unit = f"`{metric.unit}`" if metric.unit else "none"
    prometheus = metric.prometheus + SUFFIX[metric.kind]
    return f"| `{metric.name}`<br>`{prometheus}` | {metric.kind} | {unit} | {attributes} | {metric.help} |\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
