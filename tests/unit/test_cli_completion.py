# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ctl import Ctl, ctl_with, environment

VARIABLE = "_VALKYRIE_CTL_COMPLETE"


@pytest.fixture
def ctl(tmp_path: Path) -> Iterator[Ctl]:
    with ctl_with(tmp_path) as made:
        for name in ("web", "web-admin", "dns-amp"):
            made.good("limits", "set", name, "--key", "src", "--rate", "1/s")
        made.good("ban", "add", "203.0.113.0/24")
        yield made


def completed(ctl: Ctl, line: str) -> list[str]:
    """What Tab offers at the end of a line, by the protocol that the zsh script uses."""
    words = line.split()
    at = len(words) if line.endswith(" ") else len(words) - 1
    result = ctl(env={VARIABLE: "zsh_complete", "COMP_WORDS": line, "COMP_CWORD": str(at)})
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[1::3]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("valkyrie-ctl lim", ["limits"]),
        ("valkyrie-ctl limits ex", ["export", "explain"]),
        ("valkyrie-ctl limits show we", ["web", "web-admin"]),
        ("valkyrie-ctl limits override d", ["dns-amp"]),
        ("valkyrie-ctl buckets list w", ["web", "web-admin"]),
        ("valkyrie-ctl limits set web --bu", ["--burst"]),
        ("valkyrie-ctl limits set web --key src6", ["src6/48"]),
        ("valkyrie-ctl attach l", ["lo"]),
        ("valkyrie-ctl attach eth0 --mode n", ["native"]),
        ("valkyrie-ctl ban remove 2", ["203.0.113.0/24"]),
        ("valkyrie-ctl completion ", ["bash", "zsh"]),
    ],
)
def test_tab_offers(ctl: Ctl, line: str, words: list[str]) -> None:
    assert completed(ctl, line) == words


def test_without_the_daemon_tab_offers_no_names_and_says_nothing(ctl: Ctl, tmp_path: Path) -> None:
    line = f"valkyrie-ctl --socket {tmp_path / 'none'} limits show we"
    assert completed(ctl, line) == []


def test_bash_itself_completes_with_the_printed_script(ctl: Ctl, tmp_path: Path) -> None:
    program = tmp_path / "valkyrie-ctl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m valkyrie.control.cli.main "$@"\n')
    program.chmod(0o755)
    script = ctl.good("completion", "bash")
    ask = "COMP_WORDS=(valkyrie-ctl limits show we); COMP_CWORD=3; _valkyrie_ctl_completion valkyrie-ctl"
    env = {**environment(ctl.socket), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    bash = ["bash", "--norc", "-c", f'{script}\n{ask}\nprintf "%s\\n" "${{COMPREPLY[@]}}"']
    told = subprocess.run(bash, env=env, check=True, capture_output=True, text=True)
    assert told.stdout.split() == ["web", "web-admin"]


def test_the_zsh_script_defines_the_completion(ctl: Ctl) -> None:
    script = ctl.good("completion", "zsh")
    assert script.startswith("#compdef valkyrie-ctl")
    assert f"{VARIABLE}=zsh_complete" in script
    if zsh := shutil.which("zsh"):
        subprocess.run([zsh, "-n"], input=script, text=True, check=True)


def test_another_shell_is_named_with_those_there_are(ctl: Ctl) -> None:
    result = ctl("completion", "fsh")
    assert result.exit_code == 2
    assert "fsh" in result.stderr
    assert "bash" in result.stderr
