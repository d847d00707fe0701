# SPDX-License-Identifier: Apache-2.0
"""What the daemon loads with nothing switched on. Libraries cost every start time and every host memory:
those of a feature are loaded by who uses it.
"""

import grp
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from support.ctl import ROOT, environment
from valkyrie.control.cli.client import Client
from valkyrie.control.errors import Unavailable

SECONDS = 30.0
HEAVY = {
    "aiomqtt", "aiosmtplib", "cryptography", "google", "grpc", "hiredis", "httpcore", "httpx", "libvalkey",
    "opentelemetry", "paho", "prometheus_client", "pyroute2", "redis", "requests", "rich", "scapy",
    "stamina", "urllib3", "valkey",
}  # fmt: skip
HEAVY_PARTS = {"numpy.random", "unittest.mock", "valkyrie.adapters.codec", "valkyrie.control.cli.main"}
DAEMON = """
import asyncio, sys
from support.fake_engine import FakeEngine
from support.table import Table
from valkyrie.control import daemon

class Quiet(FakeEngine):
    def program_id(self): return 1
    def ready_for_calls(self): pass
    async def events(self, *_):
        await asyncio.Event().wait()
        yield
    records = events
    plane, unfilled, building = Table(64), False, False

daemon.KernelEngine = lambda *_: Quiet()
assert daemon.main(["--config", sys.argv[1]]) == 0
print("MODULES", *sys.modules)
"""


def test_nothing_heavy_is_loaded_by_a_daemon_with_default_settings(tmp_path: Path) -> None:
    given = environment(tmp_path / "api.sock")
    given["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests"), given["PYTHONPATH"]])
    settings = tmp_path / "valkyrie.yaml"
    group = grp.getgrgid(os.getgid()).gr_name
    settings.write_text(
        f"state_dir: {tmp_path}/state\nsocket: {tmp_path}/api.sock\nbpffs: {tmp_path}/bpf\n"
        f"group: {group}\nread_group: {group}\n"
    )
    argv = [sys.executable, "-c", DAEMON, str(settings)]
    with subprocess.Popen(argv, env=given, stdout=subprocess.PIPE, text=True) as process:
        try:
            answers_everything(Client(str(tmp_path / "api.sock")), process)
            process.send_signal(signal.SIGTERM)
            told, _ = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0
    loaded = set(told.partition("MODULES")[2].split())
    assert {"numpy", "pydantic", "valkyrie.control.notify.dispatcher"} <= loaded, "it did not start whole"
    found = ({name.partition(".")[0] for name in loaded} & HEAVY) | (loaded & HEAVY_PARTS)
    assert not found


def answers_everything(client: Client, process: "subprocess.Popen[str]") -> None:
    """Status, and what else is looked at where nothing is set."""
    deadline = time.monotonic() + SECONDS
    while True:
        assert process.poll() is None, "it ended"
        try:
            client.get("/v1/status")
            break
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    for path in ("alerts", "creds", "limits", "notify", "store", "telemetry", "top"):
        client.get(f"/v1/{path}")
