# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201 - it says what is missing
"""docs/images/dashboard.svg: the panels of docs/grafana/valkyrie.json with the figures of a real run.

`sudo .venv/bin/python docs/images/dashboard.py` needs Debian's `prometheus`, which scrapes the daemon and
answers the panels' queries. Three parts: the demo's traffic, a flood beside it, the demo's traffic again.
"""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from panels import Line, dashboard

from valkyrie.control.lab import demo
from valkyrie.control.lab.netns import Namespace
from valkyrie.control.lab.scenario import FLOOD, STREAMS

PICTURE = Path(__file__).with_suffix(".svg")
BOARD = Path(__file__).parents[1] / "grafana" / "valkyrie.json"
SCRAPED, PROMETHEUS = "127.0.0.1:9464", "127.0.0.1:9090"
SETTINGS = f"events: {{sample: 256, rate: 1000}}\ntelemetry: {{prometheus: {{listen: {SCRAPED}}}}}\n"
SCRAPE_S, STEP_S, PART_S, PARTS = 1, 2, 45.0, 3
VARIABLES = {"instance": ".*", "limit": ".*", "__rate_interval": f"{5 * SCRAPE_S}s"}
CONFIG = f"""\
global: {{scrape_interval: {SCRAPE_S}s}}
scrape_configs:
  - {{job_name: valkyrie, static_configs: [{{targets: ["{SCRAPED}"]}}]}}
"""
TRAFFIC = [replace(one, scapy=False) for one in STREAMS]  # all by the kernel's generator
FLOODED = [*TRAFFIC, replace(FLOOD, rate=150_000)]


@contextmanager
def prometheus(namespace: Namespace, place: Path) -> Iterator[None]:
    """Debian's, scraping each second, with its data in `place`."""
    (place / "prometheus.yml").write_text(CONFIG)
    command = ["prometheus", f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/tsdb"]
    with (place / "prometheus.log").open("wb") as log, subprocess.Popen(
        namespace.command(*command, f"--web.listen-address={PROMETHEUS}"), stdout=log, stderr=log
    ) as process:  # fmt: skip
        try:
            yield
        finally:
            process.terminate()


def asked(namespace: Namespace, path: str, **query: object) -> Any:
    """What Prometheus answers."""
    with namespace.call(urlopen, f"http://{PROMETHEUS}{path}?{urlencode(query)}") as answer:
        return json.load(answer)["data"]


def lines(namespace: Namespace, panel: Mapping[str, Any], span: tuple[float, float]) -> list[Line]:
    """The series of a panel's queries, named as its legends say."""
    found = []
    for target in panel.get("targets", ()):
        query = Template(target["expr"]).substitute(VARIABLES)
        told = asked(namespace, "/api/v1/query_range", query=query, start=span[0], end=span[1], step=STEP_S)
        for series in told["result"]:
            name = target["legendFormat"]
            for label, value in series["metric"].items():
                name = name.replace(f"{{{{{label}}}}}", value)
            line = Line(name, [(float(when), float(value)) for when, value in series["values"]])
            if line.known:
                found.append(line)
    return found


def run(lab: demo.Lab) -> tuple[float, float]:
    """The three parts, while somebody looks at the limits now and then; from when to when."""
    ended, began = threading.Event(), time.time()

    def look() -> None:
        while not ended.wait(1.0):
            for path in ("/v1/limits", "/v1/top"):
                lab.daemon.client.get(path)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for number in range(PARTS):
            streams: Sequence[demo.Stream] = FLOODED if number == 1 else TRAFFIC
            demo.run(lab, streams, PART_S, f"part {number + 1}", lambda *_: None)
    finally:
        ended.set()
        looker.join()
    return began + 2 * SCRAPE_S, time.time() - 2 * SCRAPE_S


def main() -> int:
    """Exit status 1 without a Prometheus."""
    if shutil.which("prometheus") is None:
        print("error: there is no prometheus\nhint: apt-get install prometheus", file=sys.stderr)
        return 1
    board = json.loads(BOARD.read_text())
    with ExitStack() as stack:
        lab = demo.build(stack, SETTINGS)
        place = Path(stack.enter_context(TemporaryDirectory()))
        stack.enter_context(prometheus(lab.inside, place))
        lab.daemon.ctl("attach", demo.NIC)
        lab.daemon.client.put("/v1/creds/otel-headers", {"value": "authorization=none"})
        for stream in FLOODED:
            if stream.limit:
                lab.daemon.ctl("limits", "set", stream.name, *stream.limit)
        span = run(lab)
        series = {panel["id"]: lines(lab.inside, panel, span) for panel in board["panels"]}
    PICTURE.write_text(dashboard(board, series, span))
    return 0


if __name__ == "__main__":
    sys.exit(main())
