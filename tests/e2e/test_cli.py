# SPDX-License-Identifier: Apache-2.0
"""valkyrie-ctl with the real daemon, in a network namespace with a veth NIC and real packets."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.ctl import command, environment
from support.netns import End, veth_pair

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and BPF need root")

START_SECONDS = 60
SETTINGS = """\
state_dir: {folder}/state
socket: {folder}/valkyried.sock
bpffs: {folder}/bpf
group: root
read_group: root
table:
  buckets: 4096
events:
  sample: 1
  rate: 100000
"""


@contextmanager
def mounted_bpffs(path: Path) -> Iterator[None]:
    path.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def wait_until_ready(ready: socket.socket, process: subprocess.Popen[bytes]) -> None:
    """Returns when the daemon has said READY=1; fails when it ends or START_SECONDS are over."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"valkyried ended with {process.returncode}"
        try:
            if b"READY=1" in ready.recv(4096):
                return
        except TimeoutError:
            continue
    pytest.fail(f"valkyried was not ready within {START_SECONDS} s")


@contextmanager
def daemon(folder: Path, inside: End) -> Iterator[None]:
    """valkyried from the moment it says that it is ready."""
    config = folder / "valkyrie.yaml"
    config.write_text(SETTINGS.format(folder=folder))
    (folder / "state").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(folder / "notify"))
        ready.settimeout(0.2)
        env = {
            **environment(folder / "valkyried.sock"),
            "NOTIFY_SOCKET": str(folder / "notify"),
            "VALKYRIE_CONFIG": str(config),
        }
        argv = inside.namespace.command(sys.executable, "-m", "valkyrie.control.daemon")
        with subprocess.Popen(argv, env=env) as process:
            try:
                wait_until_ready(ready, process)
                yield
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=20)


@dataclass(frozen=True)
class Appliance:
    socket: Path
    inside: End
    outside: End

    def run(self, *args: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """The command as people run it, in a process of its own."""
        return subprocess.run(
            command(*args),
            env={**environment(self.socket), "SSH_CONNECTION": "", **env},
            input=stdin, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    def good(self, *args: str, stdin: str | None = None, **env: str) -> str:
        result = self.run(*args, stdin=stdin, **env)
        assert result.returncode == 0, (args, result.stdout, result.stderr)
        return result.stdout

    def json(self, *args: str) -> Any:
        return json.loads(self.good(*args, "-o", "json"))

    def send(self, count: int, port: int) -> None:
        """UDP packets from the world to the appliance."""

        def work() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for _ in range(count):
                    sender.sendto(b"x" * 32, ("10.9.0.1", port))

        self.outside.namespace.call(work)


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    folder = tmp_path_factory.mktemp("e2e")
    with ExitStack() as stack:
        inside, outside = stack.enter_context(veth_pair())
        stack.enter_context(mounted_bpffs(folder / "bpf"))
        stack.enter_context(daemon(folder, inside))
        made = Appliance(folder / "valkyried.sock", inside, outside)
        assert "attached, native mode" in made.good(
            "attach", "nic0", SSH_CONNECTION="10.9.0.77 1 10.9.0.1 22"
        )
        yield made
        made.good("detach", "nic0")


@pytest.fixture(autouse=True)
def empty(appliance: Appliance) -> None:
    """Every test begins without limits, exempt prefixes and bans."""
    appliance.good("limits", "apply", "-f", "-", stdin='{"limits": [], "exempt": [], "ban": []}')


def test_status_tells_the_nic_and_whom_it_protects(appliance: Appliance) -> None:
    (nic,) = appliance.json("status")["nics"]
    assert (nic["nic"], nic["attached"], nic["mode"]) == ("nic0", True, "native")
    assert "10.9.0.77/32" in nic["protect"]
    assert "nic0" in appliance.good("status")


def test_a_limit_is_enforced_and_its_counters_and_buckets_are_shown(appliance: Appliance) -> None:
    args = ("--match", "proto udp dport 7000", "--key", "src", "--rate", "10/h", "--burst", "5")
    appliance.good("limits", "set", "few", *args)
    appliance.send(20, 7000)
    counters = appliance.json("limits", "show", "few")["counters"]
    assert (counters["matched"], counters["passed"], counters["dropped"]) == (20, 5, 15)
    (bucket,) = appliance.json("buckets", "list", "few")["buckets"]
    assert (bucket["key"], bucket["tokens_left"], bucket["burst"]) == ("10.9.0.2", 0, 5)
    assert "10.9.0.2" in appliance.good("buckets", "show", "few", "10.9.0.2")
    assert "1 bucket full again" in appliance.good("buckets", "reset", "few", "10.9.0.2")
    appliance.send(3, 7000)
    assert appliance.json("limits", "show", "few")["counters"]["passed"] == 8


def test_explain_asks_the_program_and_takes_no_tokens(appliance: Appliance) -> None:
    args = ("--match", "proto udp dport 7001", "--key", "src", "--rate", "10/h", "--burst", "5")
    appliance.good("limits", "set", "few", *args)
    for _ in range(2):
        told = appliance.json("limits", "explain", "src 198.51.100.7 dst 10.9.0.1 proto udp dport 7001")
        assert told["verdict"] == "pass"
        assert [(one["name"], one["matched"], one["tokens_left"]) for one in told["limits"]] == [
            ("few", True, 5)
        ]
    assert "few" in appliance.good("limits", "explain", "src 198.51.100.7 dst 10.9.0.1 proto udp dport 7001")


@pytest.mark.parametrize(
    ("source", "burst"), [("192.0.2.1", None), ("2002:c000:201::1", 7), ("10.0.0.1", 5), ("2001:db8::1", 7)]
)
def test_explain_tells_what_a_6to4_source_meets(appliance: Appliance, source: str, burst: int | None) -> None:
    match = "src 10.0.0.0/8,2000::/3 proto udp dport 7001"
    appliance.good(
        "limits", "set", "wide", "--match", match, "--key", "src", "--rate", "10/h", "--burst", "5"
    )
    appliance.good("limits", "override", "wide", "2000::/3", "--rate", "10/h", "--burst", "7")
    to = "2001:db8::2" if ":" in source else "10.9.0.1"
    told = appliance.json("limits", "explain", f"src {source} dst {to} proto udp dport 7001")
    met = {one["name"]: one["tokens_left"] for one in told["limits"] if one["matched"]}
    assert met == ({} if burst is None else {"wide": burst})


def test_apply_is_declarative_and_export_brings_back_the_same(appliance: Appliance) -> None:
    appliance.good("limits", "set", "old", "--key", "global", "--rate", "1/s")
    policy = (
        "limits:\n  - name: web\n    match: proto tcp dport 80\n    key: src/32\n    rate: 1000/s\n"
        "    overrides:\n      - prefix: 203.0.113.0/24\n        rate: 5000/s\n"
        "ban:\n  - prefix: 192.0.2.0/24\n    note: scanner\n"
    )
    dry = appliance.good("limits", "apply", "-f", "-", "--dry-run", stdin=policy)
    assert "+ limit web" in dry
    assert "- limit old" in dry
    assert [limit["name"] for limit in appliance.json("limits", "list")["limits"]] == ["old"]
    assert "applied:" in appliance.good("limits", "apply", "-f", "-", stdin=policy)
    assert [limit["name"] for limit in appliance.json("limits", "list")["limits"]] == ["web"]
    exported = appliance.good("limits", "export")
    assert appliance.good("limits", "apply", "-f", "-", stdin=exported) == "nothing to change\n"
    assert appliance.json("ban", "list")["ban"][0]["note"] == "scanner"
    assert appliance.json("limits", "show", "web")["overrides"][0]["prefix"] == "203.0.113.0/24"


def test_a_wrong_policy_is_refused_whole_with_line_and_field(appliance: Appliance) -> None:
    appliance.good("limits", "set", "old", "--key", "global", "--rate", "1/s")
    right, wrong = (
        f"  - name: {name}\n    key: src\n    rate: {rate}\n" for name, rate in (("web", "9/s"), ("dns", "x"))
    )
    policy = f"limits:\n{right}{wrong}"
    result = appliance.run("limits", "apply", "-f", "-", stdin=policy)
    assert result.returncode == 2
    assert "line 7" in result.stderr
    assert "limits[1].rate" in result.stderr
    assert [limit["name"] for limit in appliance.json("limits", "list")["limits"]] == ["old"]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (
            ("limits", "set", "web", "--match", "prto tcp", "--key", "src", "--rate", "1/s"),
            2,
            ["prto", "proto"],
        ),
        (("limits", "set", "web", "--key", "scr", "--rate", "1/s"), 2, ["scr", "src"]),
        (("limits", "set", "web", "--key", "src", "--rate", "1/s", "--burst", "64KB"), 2, ["burst", "64KB"]),
        (("limits", "set", "Web!", "--key", "src", "--rate", "1/s"), 2, ["Web!"]),
        (("limits", "show", "nothing"), 3, ["nothing"]),
        (("ban", "add", "10.0.0.1/8"), 2, ["10.0.0.1/8", "10.0.0.0/8"]),
        (("attach", "nic7"), 3, ["nic7"]),
        (("detach", "nic7"), 3, ["nic7"]),
        (("attach", "nic0", "--protect", "nobody"), 2, ["nobody"]),
        (("limits", "explain", "src 198.51.100.7 prto tcp"), 2, ["prto", "proto"]),
    ],
)
def test_the_daemons_complaints_reach_the_terminal(
    appliance: Appliance, args: tuple[str, ...], code: int, words: list[str]
) -> None:
    before = appliance.good("limits", "export")
    result = appliance.run(*args)
    assert (result.returncode, result.stdout) == (code, ""), result.stderr
    for word in words:
        assert word in result.stderr
    assert appliance.good("limits", "export") == before


def test_overrides_by_file_complain_about_the_line(appliance: Appliance) -> None:
    appliance.good("limits", "set", "web", "--key", "src", "--rate", "1/s")
    plans = "# plans\n10.0.0.0/24 10/s\n10.0.1.0/33 20/s\n"
    result = appliance.run("limits", "override", "web", "--file", "-", stdin=plans)
    assert result.returncode == 2
    assert "line 3" in result.stderr
    assert appliance.json("limits", "show", "web")["overrides"] == []
    appliance.good(
        "limits", "override", "web", "--file", "-", stdin="10.0.0.0/24 10/s\n2001:db8::/48 20/s 40\n"
    )
    assert len(appliance.json("limits", "show", "web")["overrides"]) == 2


def test_exempt_and_ban_come_and_go(appliance: Appliance) -> None:
    for kind in ("exempt", "ban"):
        appliance.good(kind, "add", "198.51.100.0/24", "--for", "10m")
        (entry,) = appliance.json(kind, "list")[kind]
        assert entry["prefix"] == "198.51.100.0/24"
        assert re.search(r" (9m\d+s|10m)\b", appliance.good(kind, "list"))
        appliance.good(kind, "remove", "198.51.100.0/24")
        assert appliance.json(kind, "list")[kind] == []


def test_events_bring_drops_as_they_happen(appliance: Appliance) -> None:
    args = ("--match", "proto udp dport 7002", "--key", "src", "--rate", "1/h", "--burst", "1")
    appliance.good("limits", "set", "none", *args)
    with subprocess.Popen(
        command("events", "--json"), env=environment(appliance.socket), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for _ in range(100):  # nothing tells when the stream has begun, so send until a drop is told
            appliance.send(2, 7002)
            if select.select([process.stdout], [], [], 0.1)[0]:
                break
        event = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    assert (event["limit"], event["src"], event["dport"]) == ("none", "10.9.0.2", 7002)


def test_top_audit_and_doctor_answer(appliance: Appliance) -> None:
    appliance.good("limits", "set", "web", "--key", "src", "--rate", "1/s")
    assert "web" in appliance.good("top", "--once")
    assert "limit.set" in appliance.good("audit")
    assert appliance.json("audit", "--count", "1")["audit"][0]["target"] == "web"
    checks = json.loads(appliance.run("doctor", "-o", "json").stdout)["checks"]
    assert {"valkyried", "kernel"} <= {check["name"] for check in checks}


def test_a_trial_shows_its_time_and_can_be_kept(appliance: Appliance) -> None:
    assert "valkyrie-ctl confirm nic0" in appliance.good("attach", "nic0", "--confirm", "1h")
    assert "unless confirmed" in appliance.good("status")
    appliance.good("confirm", "nic0")
    assert appliance.json("status")["nics"][0]["confirm_left_s"] is None
