# SPDX-License-Identifier: Apache-2.0
"""The documents say what the code does: examples parse, links lead somewhere, tables are the code's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from support.ctl import ROOT
from support.pages import FENCE, PAGES, blocks, commands, names, read, rows
from valkyrie.adapters.notify.settings import Route as NotifyRoute
from valkyrie.adapters.settings import RespSettings, ValkeySettings
from valkyrie.control import abi, errors, words
from valkyrie.control.alerts.rules import Rule
from valkyrie.control.api.models import LimitBody
from valkyrie.control.api.route import STATUS
from valkyrie.control.api.table import ROUTES
from valkyrie.control.cli.main import cli
from valkyrie.control.config import Settings, parse_settings
from valkyrie.control.dataplane.packet import parse as parse_packet
from valkyrie.control.document import from_document
from valkyrie.control.key import format_key, parse_key
from valkyrie.control.limits import Limit, Override
from valkyrie.control.match import _READERS, parse_match
from valkyrie.control.prefix import canonical_prefix

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BOUNDS = ("ge", "le", "min_length", "max_length")
SUBSCRIBERS = "203.0.113.0/24 5000/s 10000\n"
POLICY = "limits: []\n"


COMMANDS = [(page, words[1:]) for page, words in commands() if words[0] == "valkyrie-ctl"]


def parsed(args: list[str]) -> click.Context:
    """The command's context, with its options parsed. Raises what click does for wrong ones."""
    command: click.Command = cli
    context = cli.make_context("valkyrie-ctl", [], resilient_parsing=True)
    while isinstance(command, click.Group):
        found = command.get_command(context, args[0])
        assert found is not None, f"there is no command {args[0]}"
        command, args = found, args[1:]
    return command.make_context(command.name or "", list(args), parent=context)


def check_words(path: str, params: dict[str, Any]) -> None:
    """What the daemon would check: matches, keys, bursts, prefixes, packets."""
    if path.endswith("limits set"):
        action = "shadow" if params["shadow"] else "ban" if params["ban_for"] else "drop"
        names_of = ("name", "match", "key", "rate", "measure", "burst", "ban_for")
        Limit.model_validate({"action": action, **{name: params[name] for name in names_of}})
    elif path.endswith("limits override") and params["prefix"]:
        rate = params["rate"] or "1/s"
        Override(limit=params["name"], prefix=params["prefix"], rate=rate, burst=params["burst"])
    elif path.endswith("limits explain"):
        parse_packet(" ".join(params["packet"]))
    elif "prefix" in params and path.endswith((" add", " remove")):
        canonical_prefix(params["prefix"])
    elif path.endswith(" attach"):
        for prefix in params["protect"]:
            canonical_prefix(prefix)


def test_there_are_examples_to_check() -> None:
    assert len(COMMANDS) > 50
    assert {args[0] for _, args in COMMANDS} >= {"attach", "limits", "exempt", "ban", "buckets", "top"}


@pytest.mark.parametrize(
    ("page", "args"), COMMANDS, ids=lambda one: one if isinstance(one, str) else " ".join(one)
)
def test_every_command_shown_is_one_that_works(
    page: str, args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("subscribers.txt").write_text(SUBSCRIBERS)
    Path("policy.yaml").write_text(POLICY)
    with parsed(args) as context:
        check_words(context.command_path, context.params)


def test_every_command_of_the_appliance_shown_is_there() -> None:
    there = set(re.findall(r"^ {2}([\w-]+) {2,}\S", read("appliance"), re.MULTILINE))
    shown = {word for page in PAGES for word in re.findall(r"\./appliance ([\w-]+)", page.read_text())}
    assert shown >= {"demo", "install", "test"}
    assert shown <= there


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, and those set by hand."""
    text = FENCE.sub("", page.read_text())
    found = set(re.findall(r'<a id="([^"]+)"', text))
    for heading in re.findall(r"^#+ +(.+)$", text, re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} in {page.name}"
        assert there.is_relative_to(ROOT), f"{target} in {page.name}"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), f"{target} in {page.name}"


def alternatives(kind: Any) -> list[Any]:
    """The types of a union but None."""
    united = get_origin(kind) in (Union, UnionType)
    return [one for one in get_args(kind) if one is not NoneType] if united else [kind]


def typed(field: FieldInfo) -> str:
    """A field's type and bounds, as the reference words them."""
    bounds = {name: getattr(one, name) for one in field.metadata for name in BOUNDS if hasattr(one, name)}
    kinds = alternatives(field.annotation)
    if kinds[0] is bool:
        return "`true`, `false` or a section" if len(kinds) > 1 else "`true` or `false`"
    (kind,) = kinds
    if get_origin(kind) is Literal:
        choices = [f"`{word}`" for word in get_args(kind)]
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    if get_origin(kind) is tuple:
        if get_origin(get_args(kind)[0]) is Literal:
            return f"list of stores, at most {bounds['max_length']}"
        special = {Rule: "rules", NotifyRoute: "routes"}
        what = special.get(get_args(kind)[0], "texts" if "min_length" in bounds else "prefixes")
        return f"list of {what}, at most {bounds['max_length']}"
    if get_origin(kind) is dict:
        return f"sections by name, at most {bounds['max_length']}"
    if kind in (int, float):
        word = "whole number" if kind is int else "number"
        return (
            f"{word}, {bounds['ge']} to {bounds['le']}"
            if "le" in bounds
            else f"{word}, at least {bounds['ge']}"
        )
    if kind is str or get_origin(kind) is Annotated:
        if "min_length" in bounds:
            return f"name, {bounds['min_length']} to {bounds['max_length']} characters"
        return f"text, at most {bounds['max_length']} characters" if "max_length" in bounds else "text"
    assert kind is Path, f"no words for {kind}"
    return "absolute path" if field.annotation is Path else "path"


def shown(value: Any) -> str:
    """A default, as the reference has it."""
    if value is PydanticUndefined:
        return "must be given"
    if value is None:
        return "none"
    if value == {}:
        return "`{}`"
    words = {(): "[]", True: "true", False: "false"}
    return f"`{words[value] if isinstance(value, bool | tuple) else value}`"


def leaves(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Settings by their dotted names. What Valkey shares with Redis is told once."""
    for name, field in model.model_fields.items():
        if model is ValkeySettings and name in RespSettings.model_fields and name != "url":
            continue
        kinds = alternatives(field.annotation)
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if sections != kinds:
            yield before + name, field
        for section in sections:
            yield from leaves(section, f"{before}{name}.")


def test_settings_are_those_of_the_model() -> None:
    page = read("docs/configuration.md")
    headings = re.findall(r"^(##? .+)\n(?:(?!#).*\n)*?\| setting \|", page, re.MULTILINE)
    told = {row[0]: row[1:] for heading in headings for row in rows(page, heading)}
    model = dict(leaves(Settings))
    assert list(told) == [f"`{name}`" for name in model]
    for name, field in model.items():
        kind, default, meaning = told[f"`{name}`"]
        assert (kind, default) == (typed(field), shown(field.default)), name
        assert meaning.endswith("."), name


def test_settings_shown_are_understood() -> None:
    for block in blocks(read("docs/configuration.md"), "yaml"):
        assert parse_settings(block.encode(), "docs") != Settings()


def test_routes_are_those_of_the_table() -> None:
    told = [tuple(row) for row in rows(read("docs/api.md"), "## Routes")]
    access = {True: "change", False: "look"}
    assert told == [
        (route.method, f"`{route.path}`", access[route.writes], f"{route.summary}.") for route in ROUTES
    ]


def test_query_parameters_are_those_of_the_routes() -> None:
    part = read("docs/api.md").split("query parameters:\n", 1)[1].split("\n\nAn unknown", 1)[0]
    for route in ROUTES:
        if route.query:
            assert f"`{route.method} {route.path}`" in part
        for name in route.query:
            assert f"`{name}`" in part


def test_errors_are_those_of_the_classes() -> None:
    told = {row[0].strip("`"): (int(row[1]), int(row[2])) for row in rows(read("docs/api.md"), "## Errors")}
    base = errors.ValkyrieError
    classes: list[type[errors.ValkyrieError]] = [base, *base.__subclasses__()]
    known = {
        one.code: (STATUS.get(one.code, 500), one.exit_code)
        for one in classes
        if one.__module__ == errors.__name__
    }
    assert told == known


def test_bodies_shown_are_understood() -> None:
    shown = [json.loads(block) for block in blocks(read("docs/api.md"), "json")]
    limits = [body for body in shown if "rate" in body and "counters" not in body]
    documents = [body for body in shown if "limits" in body]
    assert limits
    assert documents
    for body in limits:
        LimitBody.model_validate(body)
    for body in documents:
        assert from_document(body).limits


def struct_fields(name: str) -> list[str]:
    body = read("bpf/abi.h").split(f"struct {name} {{", 1)[1].split("}", 1)[0]
    return [field for field in re.findall(r"u\d+ (\w+)(?:\[\w+\])?;", body) if field != "reserved"]


def test_counters_are_those_of_the_abi() -> None:
    page = read("docs/counters.md")
    assert names(rows(page, "## Of a limit")) == struct_fields("limit_stats")
    table = names(rows(page, "## Of the table"))
    assert sorted(table) == sorted([*struct_fields("table_stats"), "buckets", "live"])
    assert names(rows(page, "## By reason")) == [reason.name.lower() for reason in abi.Reason]


def test_verdicts_of_reasons_are_those_of_the_program() -> None:
    for row in rows(read("docs/counters.md"), "## By reason"):
        reason = abi.Reason[row[0].strip("`").upper()]
        malformed = reason >= abi.Reason.BAD_ETHERNET
        assert row[1] == ("malformed" if malformed else "drop" if reason >= abi.Reason.LIMIT else "pass")


def test_event_fields_are_those_that_are_told() -> None:
    told = (
        read("control/service/drops.py").split("def _in_words", 1)[1].split("return {", 1)[1].split("}", 1)[0]
    )
    fields = re.findall(r'"(\w+)": ', told)
    assert sorted(names(rows(read("docs/counters.md"), "## Events"))) == sorted(fields)


def test_the_words_of_matches_are_all_told_and_their_examples_parse() -> None:
    page = read("docs/limits.md")
    table = rows(page, "## Match")
    assert set(names(table)) == {*_READERS, "syn"}
    for row in table:
        parse_match(row[2].strip("`"))
    listed = {*words.PROTOCOLS, *words.TCP_FLAGS, *words.ICMP4_TYPES, *words.ICMP6_TYPES, *words.FRAGMENTS}
    assert listed <= set(re.findall(r"[\w-]+", page))


def test_the_keys_shown_parse() -> None:
    for key in (key for key in names(rows(read("docs/limits.md"), "## Key")) if "N" not in key):
        assert parse_key(format_key(parse_key(key))) == parse_key(key)


def test_messages_in_troubleshooting_are_ones_that_are_said() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "control").rglob("*.py"))
    told = names(rows(read("docs/operations.md"), "## Troubleshooting"))
    assert len(told) > 10
    for message in told:
        assert message in code, message


def test_the_capabilities_named_are_those_of_the_unit() -> None:
    unit = read("control/host/valkyried.service")
    (line,) = re.findall(r"^CapabilityBoundingSet=(.+)$", unit, re.MULTILINE)
    assert set(re.findall(r"CAP_\w+", read("docs/security.md"))) == set(line.split())


def test_maps_named_are_all_maps() -> None:
    arrays = r'^(?:PINNED_ARRAY\(|BPF_TABLE\("array", u32, )[\w ]+, (\w+), '
    declared = re.findall(arrays, read("bpf/maps.h") + read("bpf/scratch.h"), re.MULTILINE)
    told = names(rows(read("docs/architecture.md"), "## Maps"))
    assert set(told) == {*declared, "nics", "continuation", "events", "watchers", "captured", "observed"}


def test_no_page_names_a_file_of_the_machine_it_was_written_on() -> None:
    for page in PAGES:
        assert not re.search(r"(?<!\w)/(root|home)/", page.read_text()), page.name
