# SPDX-License-Identifier: Apache-2.0
import shutil
import subprocess

import pytest

from support.ctl import ROOT
from valkyrie.control.cli.exits import MEANINGS
from valkyrie.control.cli.man import page
from valkyrie.control.cli.reference import reference
from valkyrie.control.cli.tree import commands


def test_the_reference_in_docs_is_current() -> None:
    made = "python -m valkyrie.control.cli.reference > docs/cli.md"
    assert (ROOT / "docs" / "cli.md").read_text() == reference(), f"run: {made}"


def test_the_tree_has_every_command_of_the_appliance() -> None:
    paths = {command.path.removeprefix("valkyrie-ctl").strip() for command in commands()}
    assert paths >= {
        "attach", "confirm", "detach", "status", "doctor", "top", "events", "audit", "completion",
        "limits set", "limits list", "limits show", "limits delete", "limits override", "limits apply",
        "limits export", "limits explain", "exempt add", "exempt list", "exempt remove", "ban add",
        "ban list", "ban remove", "buckets list", "buckets show", "buckets reset",
        "store status", "store check", "store consume",
        "standby follow", "standby take-over", "standby status", "standby end",
    }  # fmt: skip


@pytest.mark.parametrize("command", [one for one in commands() if not one.group], ids=lambda one: one.path)
def test_every_command_that_prints_has_output_kinds(command: object) -> None:
    forms = " ".join(option.forms for option in command.options)  # type: ignore[attr-defined]
    assert "--output" in forms or command.path.endswith(("completion", "capture"))  # type: ignore[attr-defined]


def test_every_option_and_command_says_what_it_does() -> None:
    for command in commands():
        assert command.help, command.path
        for option in command.options:
            assert option.help, (command.path, option.forms)


def test_exit_codes_are_told_once_each_in_help_and_reference() -> None:
    codes = [code for code, _ in MEANINGS]
    assert len(set(codes)) == len(codes)
    for code, meaning in MEANINGS:
        assert f"| {code} | {meaning} |" in reference()


def test_the_man_page_has_every_command_and_roff_has_no_complaint() -> None:
    text = page("0.1.0")
    for command in commands():
        assert command.path.replace("-", "\\-") in text
    assert all(ord(character) < 128 for character in text)
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed")
    made = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww", "-b"], input=text, capture_output=True, text=True, check=True
    )
    assert made.stderr == ""
    assert "valkyrie-ctl limits set" in made.stdout.replace("\N{HYPHEN}", "-")
