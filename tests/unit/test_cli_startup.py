# SPDX-License-Identifier: Apache-2.0
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from support.ctl import command, ctl_with, environment

HEAVY = ("pydantic", "numpy", "httpx", "rich", "ruamel", "starlette", "uvloop", "asyncio", "pyroute2")
BUDGET_SECONDS = 0.3


@pytest.mark.parametrize(
    "args", [("limits", "list"), ("limits", "set", "x", "--key", "src", "--rate", "1/s"), ("ban", "list")]
)
def test_nothing_heavy_is_imported_to_answer(tmp_path: Path, args: tuple[str, ...]) -> None:
    with ctl_with(tmp_path) as ctl:
        code = (
            "import sys; from valkyrie.control.cli.main import cli\n"
            "try: cli(sys.argv[1:])\n"
            "except SystemExit: print('MODULES', *sys.modules)"
        )
        told = subprocess.run(
            [sys.executable, "-c", code, *args],
            env=environment(ctl.socket), check=True, capture_output=True, text=True,
        )  # fmt: skip
    loaded = {name.partition(".")[0] for name in told.stdout.partition("MODULES")[2].split()}
    assert loaded.isdisjoint(HEAVY)
    assert "click" in loaded


def processor_seconds() -> float:
    """Of all children that have ended: what they took, however busy the machine is."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_an_answer_takes_less_than_300_ms_of_the_processor(tmp_path: Path) -> None:
    with ctl_with(tmp_path) as ctl:
        ctl.good("limits", "set", "web", "--key", "src", "--rate", "1/s")
        taken = []
        for _ in range(5):
            before = processor_seconds()
            argv = command("limits", "list")
            subprocess.run(argv, env=environment(ctl.socket), check=True, capture_output=True)
            taken.append(processor_seconds() - before)
    assert min(taken) < BUDGET_SECONDS
