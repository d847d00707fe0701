# SPDX-License-Identifier: Apache-2.0
"""capture, limits suggest and compare that end before their time say so, and what was seen is used."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.ctl import Ctl, ctl_with
from valkyrie.control.cli.client import Client

FRAME = {
    "time_ns": 1_700_000_000_000_000_000, "nic": "nic0", "length": 60, "data": "", "verdict": "drop",
    "reason": "limit", "limit": "web",
}  # fmt: skip
CUT = "valkyried ended it after 0 s of "


@pytest.fixture
def ctl(tmp_path: Path) -> Iterator[Ctl]:
    with ctl_with(tmp_path) as made:
        made.good("limits", "set", "web", "--key", "src", "--rate", "1000/s", "--burst", "2000")
        yield made


def test_compare_that_is_ended_before_anything_was_seen_says_so(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "stream", interrupted)
    told = ctl.good("limits", "compare", "web", "--rate", "500/s")
    assert told.startswith("no packet matched\n")
    assert "2000" in told


def test_a_daemon_that_goes_away_is_told_by_whoever_watched(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Client, "stream", lambda *_: iter([{"frame": FRAME}]))
    result = ctl("capture", "--count", "5", "-w", str(tmp_path / "it.pcapng"))
    assert (result.exit_code, result.stderr) == (0, f"{CUT}60\n1 packets\n")
    monkeypatch.setattr(Client, "stream", lambda *_: iter([{"figures": {"seen": 0}}]))
    for words in (("suggest", "--key", "src"), ("compare", "web", "--rate", "1/s", "--for", "10m")):
        result = ctl("limits", *words)
        assert (result.exit_code, result.stderr) == (0, f"{CUT}600\n"), words


def test_what_ended_as_it_should_is_not_called_cut(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Client, "stream", lambda *_: iter([{"frame": FRAME}] * 5))
    result = ctl("capture", "--count", "5", "-w", str(tmp_path / "it.pcapng"))
    assert result.stderr == "5 packets\n"
    monkeypatch.setattr(Client, "stream", lambda *_: iter([{"figures": {"seen": 0}}]))
    assert ctl("limits", "suggest", "--key", "src", "--for", "1ms").stderr == ""
