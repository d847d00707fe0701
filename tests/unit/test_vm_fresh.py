# SPDX-License-Identifier: Apache-2.0
"""vm/fresh-root: its command line, what it refuses, and that it leaves nothing."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from harness import fresh
from harness.errors import VmError
from harness.root import COPIED, environment, making

Usage = namedtuple("Usage", ["free"])


@pytest.fixture
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host on which nothing is missing."""
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(fresh.NEEDED_BYTES))


def test_without_a_command_it_sets_up_and_tests() -> None:
    told = fresh.parse(["trixie"])
    assert (told.release, told.command, told.offline) == ("trixie", fresh.COMMAND, False)


def test_options_behind_the_release_are_the_commands() -> None:
    told = fresh.parse(["--offline", "noble", "./appliance", "test", "--log", "-q"])
    assert (told.offline, told.log, told.command) == (True, None, "./appliance test --log -q")


@pytest.mark.parametrize("argv", [[], ["sid"], ["--minutes", "0", "trixie"], ["--minutes", "soon", "trixie"]])
def test_what_it_does_not_know_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        fresh.parse(argv)
    assert caught.value.code == 2
    assert "usage: vm/fresh-root" in capsys.readouterr().err


@pytest.mark.usefixtures("able")
def test_no_space_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.check("trixie", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(fresh.NEEDED_BYTES - 1))
    with pytest.raises(VmError) as caught:
        fresh.check("trixie", tmp_path)
    assert f"no space for a root in {tmp_path}" in str(caught.value)
    assert "4096 MiB are needed" in str(caught.value)


@pytest.mark.usefixtures("able")
def test_what_is_missing_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VmError, match="there is no folder"):
        fresh.check("trixie", tmp_path / "no")
    monkeypatch.setattr(fresh, "UBUNTU_KEYS", tmp_path / "no")
    fresh.check("trixie", tmp_path)
    with pytest.raises(VmError, match="Install ubuntu-keyring"):
        fresh.check("noble", tmp_path)
    monkeypatch.setattr(fresh, "CHECKOUT", tmp_path)
    with pytest.raises(VmError, match="not a clone"):
        fresh.check("trixie", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(VmError, match="apt-get install mmdebstrap"):
        fresh.check("trixie", tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    with pytest.raises(VmError, match="sudo vm/fresh-root"):
        fresh.check("trixie", tmp_path)


@pytest.mark.parametrize(("ends", "status"), [("exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_output_is_copied_and_the_exit_code_is_the_commands(ends: str, status: int) -> None:
    told = subprocess.Popen(
        [sys.executable, "-c", f"import os; print('one\\ntwo', flush=True); {ends}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    shown, log = io.StringIO(), io.StringIO()
    assert fresh.follow(told, (shown, log)) == status
    assert shown.getvalue() == log.getvalue() == "one\ntwo\n"


def test_of_this_process_a_command_inside_sees_the_index_of_pip_and_no_secret() -> None:
    found = environment(
        {"PIP_INDEX_URL": "https://index.test", "PIP_FIND_LINKS": "/wheels", "TOKEN": "x", "PATH": "/a"}
    )
    assert found["PIP_INDEX_URL"] == "https://index.test"
    assert found.keys() <= {"PIP_INDEX_URL", "PIP_CERT", "PATH", "HOME", "LC_ALL"}
    assert found.get("PIP_CERT") in {None, COPIED}
    assert "/a" not in found["PATH"]


def test_a_root_is_made_in_namespaces_that_end_with_the_command() -> None:
    argv = making("noble", Path("/x"), ["git"], fresh.COMPONENTS["noble"])
    assert argv[0] == "unshare"
    assert "--kill-child" in argv
    assert argv[-2:] == ["noble", "/x"]
    assert {"--include=git", "--components=main,universe"} <= set(argv)


def test_roots_of_killed_runs_are_removed_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for name in (f"{gone.pid}-a", f"{os.getpid()}-b", "what-c"):
        (tmp_path / f"{fresh.PREFIX}{name}").mkdir()
    (tmp_path / f"{fresh.PREFIX}{gone.pid}-a" / "root").mkdir()
    fresh.remove_stale(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{fresh.PREFIX}{os.getpid()}-b",
        f"{fresh.PREFIX}what-c",
    }
