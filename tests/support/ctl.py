# SPDX-License-Identifier: Apache-2.0
"""valkyrie-ctl against the API in memory: in this process, or as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from support.fake_api import FakeApi, Request, serving
from valkyrie.control.cli.main import PROGRAM, cli

ROOT = Path(__file__).parents[2]


class Ctl:
    """Runs command lines against one API."""

    def __init__(self, api: FakeApi, socket: Path) -> None:
        self.api = api
        self.socket = socket

    def __call__(self, *args: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> Result:
        given = {"VALKYRIE_SOCKET": str(self.socket), "SSH_CONNECTION": "", "NO_COLOR": "", **(env or {})}
        return CliRunner().invoke(cli, args, input=stdin, env=given, prog_name=PROGRAM)

    def good(self, *args: str, stdin: str | None = None) -> str:
        """What a command that must succeed printed."""
        result = self(*args, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *args: str) -> Any:
        return json.loads(self.good(*args, "-o", "json"))

    def sent(self) -> Request:
        """The last request."""
        return self.api.requests[-1]

    def process(self, *args: str, **kwargs: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command(*args), env=environment(self.socket), **kwargs)


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "valkyrie.control.cli.main", *args]


def environment(socket: Path) -> dict[str, str]:
    found = os.pathsep.join(filter(None, [str(ROOT / ".src"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": found, "VALKYRIE_SOCKET": str(socket), "COLUMNS": "120"}


@contextmanager
def ctl_with(folder: Path, api: FakeApi | None = None) -> Iterator[Ctl]:
    """valkyrie-ctl with its API at a socket in `folder`."""
    socket = folder / "api.sock"
    with serving(socket, api or FakeApi()) as served:
        yield Ctl(served, socket)
