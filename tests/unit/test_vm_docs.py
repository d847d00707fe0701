# SPDX-License-Identifier: Apache-2.0
"""The page of the virtual machines: its commands parse, its tables are the code's."""

from __future__ import annotations

import json
import re
from pathlib import Path

import make_box
import vagrant_lab
from harness import fresh, main
from profiles.table import PROFILES
from sending import options
from sending.ledger import Ledger, total
from support.ctl import ROOT
from support.pages import blocks, commands, names, read, rows

PAGE = "vm/README.md"
COMMANDS = [words for page, words in commands() if page == PAGE]
VAGRANTS = {"Waiting for machine to boot"}  # messages that are not ours


def given(program: str) -> list[list[str]]:
    """The arguments of each call of a program that is shown."""
    found = [words[1:] for words in COMMANDS if Path(words[0]).name == program]
    assert found, f"no example of {program}"
    return found


def test_programs_shown_are_there() -> None:
    for words in COMMANDS:
        place = words[0].removeprefix("/vagrant/")
        if "/" in place and not place.startswith((".venv/", "/")):
            assert (ROOT / place).stat().st_mode & 0o111, place


def test_traffic_shown_can_be_sent() -> None:
    shown = set()
    for words in given("traffic.py"):
        if words[0] == "serve":
            options.server("").parse_args(words[1:])
        elif words != ["list"] and words[1:] != ["--help"]:
            options.checked(options.sender("").parse_args(words))
        shown.add(words[0])
    assert shown >= {"list", "serve", "ping", "mixed"}


def test_runs_shown_can_be_asked_for() -> None:
    for words in given("appliance"):
        if words[0] == "vm-test":
            assert all(word[0] == "-" or word == "fragments" for word in main.parse(words[1:])[1]), words
    for words in given("fresh-root"):
        fresh.parse(words)
    for words in given("make_box.py"):
        make_box.parse(words)
    for words in given("vagrant_lab.py"):
        vagrant_lab.parse(words)


def test_options_of_a_run_are_all_told() -> None:
    told = set(names(rows(read(PAGE), "## Tests on a machine")))
    source = read("vm/harness/main.py")
    assert told == set(re.findall(r'add_argument\(\s*"(--\w+)"', source))


def test_profiles_are_those_of_the_table() -> None:
    table = rows(read(PAGE), "## Traffic")
    assert {name: row[1] for name, row in zip(names(table), table, strict=True)} == {
        name: profile.summary for name, profile in PROFILES.items()
    }


def test_the_report_shown_has_the_fields_that_are_told() -> None:
    page = read(PAGE)
    (shown,) = (json.loads(block) for block in blocks(page, "json"))
    fields = set(re.findall(r'^ {8}"(\w+)": ', read("vm/traffic.py").partition("told = {")[2], re.MULTILINE))
    ledger = Ledger()
    ledger.sent(0, "udp", 0, (b"x",), asks=True)
    ledger.answered(0, 1)
    kinds = ledger.report()
    assert set(shown) == fields
    assert set(shown["total"]) == set(total(kinds))
    for kind in shown["kinds"].values():
        assert set(kind) == set(kinds["udp"])
        assert set(kind["round_trip_ms"]) == set(kinds["udp"]["round_trip_ms"])
    assert set(names(rows(page, "### The report"))) == fields | set(kinds["udp"])


def test_messages_in_troubleshooting_are_ones_that_are_said() -> None:
    files = [*(ROOT / "vm").rglob("*.py"), ROOT / "vm/Vagrantfile"]
    code = re.sub(r'"\s*\n?\s*f?"', "", "\n".join(path.read_text() for path in files))
    told = names([row[:1] for row in rows(read(PAGE), "## Troubleshooting")])
    assert len(told) > 10
    for message in set(told) - VAGRANTS:
        assert message in code, message


def test_the_machines_are_those_of_the_vagrantfile() -> None:
    vagrantfile, page = read("vm/Vagrantfile"), read(PAGE)
    cells = {row[0]: row[1:] for row in rows(page, "### The machines")}
    machines = dict(re.findall(r'"(appliance|client)" => \[(\d+, \d+), \d+\]', vagrantfile))
    assert cells["CPUs, memory"][:2] == [f"{told} MiB" for told in machines.values()]
    for network, queues, address in re.findall(r'"(data\d)" => \[(\d), "([\d.]+)"', vagrantfile):
        assert cells[network] == [f"{address}.10", f"{address}.20", queues]
