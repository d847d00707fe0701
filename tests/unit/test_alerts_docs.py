# SPDX-License-Identifier: Apache-2.0
"""docs/alerts.md has the catalogue of the code, and what it shows works."""

from __future__ import annotations

import re

from support.ctl import ROOT
from valkyrie.control.alerts.engine import MOST_ALERTS
from valkyrie.control.alerts.groups import MOST_LINES
from valkyrie.control.alerts.outbox import MOST
from valkyrie.control.alerts.readings import RATE_S
from valkyrie.control.alerts.reference import with_catalogue
from valkyrie.control.config import parse_settings

PAGE = (ROOT / "docs" / "alerts.md").read_text()


def test_the_catalogue_in_docs_is_current() -> None:
    made = "python -m valkyrie.control.alerts.reference docs/alerts.md"
    assert with_catalogue(PAGE) == PAGE, f"run: {made}"


def test_the_settings_shown_are_understood() -> None:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(parse_settings(shown.encode(), "docs").alerts.rules) == 4


def test_the_bounds_told_are_those_of_the_code() -> None:
    assert f"At most {MOST_ALERTS:,} alerts" in PAGE
    assert f"Messages wait, {MOST} at most" in PAGE
    assert (MOST_LINES, RATE_S) == (20, 5.0)
    assert "lists twenty of them" in PAGE
    assert "the last five seconds" in PAGE
