# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ctl import ROOT, Ctl, ctl_with
from support.fake_api import RefusedError
from valkyrie.control.cli.protect import client_address, parent_of, ssh_client

SSH = "198.51.100.9 50022 192.0.2.1 22"


@pytest.fixture
def ctl(tmp_path: Path) -> Iterator[Ctl]:
    with ctl_with(tmp_path) as made:
        yield made


def test_attach_protects_the_ssh_client_and_says_so(ctl: Ctl) -> None:
    result = ctl("attach", "eth0", env={"SSH_CONNECTION": SSH})
    assert result.exit_code == 0
    assert ctl.sent().path == "/v1/nics/eth0/attach"
    assert ctl.sent().body == {"mode": "auto", "confirm": None, "replace": False, "protect": ["198.51.100.9"]}
    assert result.stdout.splitlines() == [
        "eth0: attached, native mode",
        "198.51.100.9 is protected: your SSH session comes from there",
    ]


def test_given_prefixes_come_beside_the_session(ctl: Ctl) -> None:
    args = ("attach", "eth0", "--protect", "10.0.0.0/8", "--protect", "198.51.100.9", "--mode", "generic")
    ctl(*args, "--replace", env={"SSH_CONNECTION": SSH})
    body = ctl.sent().body
    assert body["protect"] == ["10.0.0.0/8", "198.51.100.9"]
    assert (body["mode"], body["replace"]) == ("generic", True)


def test_a_trial_says_how_to_keep_it(ctl: Ctl) -> None:
    text = ctl.good("attach", "eth0", "--confirm", "60s")
    assert ctl.sent().body["confirm"] == "60s"
    assert "detaches by itself after 60s unless you run: valkyrie-ctl confirm eth0" in text


def test_generic_mode_is_said_clearly(ctl: Ctl) -> None:
    ctl.api.mode = "generic"
    text = ctl.good("attach", "veth0")
    assert "attached, generic mode" in text
    assert "slower" in text


def test_what_the_daemon_notes_of_the_mode_is_said(ctl: Ctl) -> None:
    note = "generic mode: lo refused native XDP (Operation not supported)"
    ctl.api.answers["/v1/nics/lo/attach"] = {"nic": "lo", "mode": "generic", "note": note}
    assert note in ctl.good("attach", "lo")


def test_confirm_and_detach(ctl: Ctl) -> None:
    ctl.good("confirm", "eth0")
    assert (ctl.sent().method, ctl.sent().path) == ("POST", "/v1/nics/eth0/confirm")
    ctl.good("detach", "eth0")
    assert (ctl.sent().method, ctl.sent().path) == ("DELETE", "/v1/nics/eth0")


def test_a_foreign_program_is_shown_and_has_its_exit_code(ctl: Ctl) -> None:
    what = "eth0 carries another XDP program: id 42, xdp_filter"
    ctl.api.refuse = RefusedError(409, "foreign", what, "--replace takes its place")
    result = ctl("attach", "eth0")
    assert result.exit_code == 8
    assert what in result.stderr
    assert "--replace" in result.stderr


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        (SSH, "198.51.100.9"),
        ("2001:db8::9 50022 2001:db8::1 22", "2001:db8::9"),
        ("fe80::1%eth0 50022 fe80::2%eth0 22", "fe80::1"),
        ("::ffff:192.0.2.7 1 ::ffff:192.0.2.1 22", "192.0.2.7"),
        ("", None),
        ("somewhere 1 2 3", None),
    ],
)
def test_the_client_address_is_read_from_the_variable(variable: str, address: str | None) -> None:
    assert client_address(variable) == address


def test_the_parent_is_found_behind_any_process_name() -> None:
    assert parent_of("7 (a) b (c)) S 41 7 7 0") == 41


def test_a_dropped_variable_is_found_in_the_process_that_called_sudo() -> None:
    """A shell has the variable, its child (as sudo would) has not, nor has the grandchild that asks."""
    ask = "import os; from valkyrie.control.cli.protect import ssh_client; print(ssh_client({}, os.getpid()))"
    inner = [
        "env", "-i", f"PYTHONPATH={ROOT / '.src'}", sys.executable, "-c",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)", ask,
    ]  # fmt: skip
    outer = [
        sys.executable,
        "-c",
        "import json, subprocess, sys; subprocess.run(json.loads(sys.argv[1]), check=True)",
    ]
    told = subprocess.run(
        [*outer, json.dumps(inner)],
        env={**os.environ, "SSH_CONNECTION": SSH},
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout.strip() == "198.51.100.9"


def test_looking_through_processes_ends_where_proc_ends(tmp_path: Path) -> None:
    assert ssh_client({}, 4_000_000, tmp_path) is None


def test_processes_that_loop_do_not_hold_up(tmp_path: Path) -> None:
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "environ").write_bytes(b"A=1\0")
    (folder / "stat").write_text("7 (x) S 7 7 7")
    assert ssh_client({}, 7, tmp_path) is None
