# SPDX-License-Identifier: Apache-2.0
"""valkyrie-ctl alerts against the real API: what people type, and what they read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from support.served import Served, served
from support.workbench import ADMIN, WEB
from valkyrie.control.alerts.rules import made
from valkyrie.control.alerts.settings import AlertSettings
from valkyrie.control.cli.main import PROGRAM, cli
from valkyrie.control.config import Settings

OWN = made("web-drops", {"when": "drop-rate", "limit": "web", "above": "100/s"})
LINKS = made("links", {"when": "event", "event": "link"})


class Typed:
    def __init__(self, api: Served) -> None:
        self.api = api

    async def __call__(self, line: str, **env: str) -> Result:
        given = {"VALKYRIE_SOCKET": str(self.api.path), "NO_COLOR": "1", **env}

        def run() -> Result:
            return CliRunner().invoke(cli, line.split(), env=given, prog_name=PROGRAM)

        return await asyncio.to_thread(run)

    async def good(self, line: str) -> str:
        result = await self(line)
        assert result.exit_code == 0, result.output
        return result.stdout

    async def completed(self, line: str) -> list[str]:
        words = line.split()
        at = len(words) if line.endswith(" ") else len(words) - 1
        env = {"_VALKYRIE_CTL_COMPLETE": "zsh_complete", "COMP_WORDS": line, "COMP_CWORD": str(at)}
        return (await self("", **env)).stdout.splitlines()[1::3]


@pytest_asyncio.fixture
async def typed(tmp_path: Path) -> AsyncIterator[Typed]:
    alerts = AlertSettings(rules=(OWN, LINKS))
    settings = Settings(state_dir=tmp_path, socket=tmp_path / "v.sock", alerts=alerts)
    async with served(settings) as api:
        yield Typed(api)


async def noted(typed: Typed) -> None:
    """A note that makes the rule `links` fire."""
    typed.api.service.hub.tell("link", "eth0: link down")
    await asyncio.sleep(0)
    await typed.api.service.alerts.look()


async def test_list_shows_what_fires_and_what_is_wrong(typed: Typed) -> None:
    assert "no alerts" in await typed.good("alerts list")
    await noted(typed)
    text = await typed.good("alerts list")
    assert "rule web-drops: no such limit: web" in text
    assert "eth0: link down" in text
    assert "not told yet" in text
    told = json.loads(await typed.good("alerts list -o json"))
    assert told["alerts"][0]["tags"]["event"] == "link"
    status = await typed.good("status")
    assert status.startswith("alerts: rule web-drops: no such limit: web")
    assert "1 firing, the worst warning" in status
    assert "links" in await typed.good("alerts list -o yaml")


async def test_history_has_what_fired(typed: Typed) -> None:
    assert "nothing has fired" in await typed.good("alerts history")
    await noted(typed)
    assert "eth0: link down" in await typed.good("alerts history --count 5")


async def test_rules_are_added_with_all_their_words_and_removed(typed: Typed) -> None:
    await typed.api.service.limits.put(ADMIN, "dns", WEB)
    await typed.good(
        "alerts add d --when drop-share --limit dns --above 30% --at-least 5/s --for 2m --clear-below 10%"
        " --clear-after 9m --severity critical --tag team=net --tag site=a --note run"
    )
    rules = {one["name"]: one for one in json.loads(await typed.good("alerts rules -o json"))["rules"]}
    wanted: dict[str, Any] = {
        "when": "drop-share", "which": "dns", "above": "30%", "at_least": "5/s", "for": "2m",
        "clear_below": "10%", "clear_after": "9m", "severity": "critical",
        "tags": {"team": "net", "site": "a"}, "note": "run", "origin": "added", "problem": "",
    }  # fmt: skip
    assert rules["d"] | wanted == rules["d"]
    assert rules["sync-lag"]["origin"] == "shipped"
    row = next(one for one in (await typed.good("alerts rules")).splitlines() if one.startswith("d "))
    assert row.split() == ["d", "drop-share", "dns", "30%", "2m", "9m", "critical", "added"]
    await typed.good("alerts remove d")


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("alerts add x --when drop-rate --limit web --above 1/s", 3, "no limit 'web'"),
        ("alerts add x --when drop-rate --above 20%", 2, "above"),
        ("alerts add x --when drop-rate --above 1/s --tag team", 2, "team"),
        ("alerts add links --when event --event link", 4, "valkyrie.yaml"),
        ("alerts add X --when nic-down", 2, "name of a rule"),
        ("alerts remove sync-lag", 4, "enabled: false"),
        ("alerts remove nobody", 3, "nobody"),
        ("alerts silence sync-lag --for 100d", 2, "90d"),
        ("alerts unsilence sync-lag", 3, "no silence"),
        ("alerts test", 2, "which rule"),
        ("alerts test a --when nic-down", 2, "which rule"),
        ("alerts test nobody", 3, "nobody"),
    ],
)
async def test_what_is_wrong_is_said_with_its_code(typed: Typed, line: str, code: int, words: str) -> None:
    result = await typed(line)
    assert result.exit_code == code, result.output
    assert words in result.stderr


async def test_a_silence_is_shown_with_who_and_why(typed: Typed) -> None:
    await noted(typed)
    assert "1 firing" in await typed.good("alerts silence event=link --for 2h --why maintenance")
    text = await typed.good("alerts list")
    assert "maintenance" in text
    assert "1h59m" in text or "2h" in text
    assert "silenced" in text
    assert "1 silenced" in await typed.good("status")
    await typed.good("alerts unsilence event=link")
    assert "maintenance" not in await typed.good("alerts list")


async def test_test_says_what_a_rule_would_say(typed: Typed) -> None:
    assert "not known now" in await typed.good("alerts test --when table-full")
    await typed.api.service.alerts.look()
    assert "nothing would fire" in await typed.good("alerts test --when table-full --above 1%")
    assert "no such limit: web" in await typed.good("alerts test web-drops")


async def test_tab_knows_rules_kinds_silences_and_tags(typed: Typed) -> None:
    await noted(typed)
    await typed.good("alerts add mine --when nic-down")
    await typed.good("alerts silence mine --for 1h")
    assert await typed.completed("valkyrie-ctl alerts remove ") == ["mine"]
    assert await typed.completed("valkyrie-ctl alerts test we") == ["web-drops"]
    assert await typed.completed("valkyrie-ctl alerts silence event") == ["event=link", "events-lost"]
    assert await typed.completed("valkyrie-ctl alerts unsilence ") == ["mine"]
    assert await typed.completed("valkyrie-ctl alerts add x --when shadow") == ["shadow-rate"]
