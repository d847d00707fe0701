# SPDX-License-Identifier: Apache-2.0
"""What a rule can watch: the catalogue. The rules, the engine and docs/alerts.md are all made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from valkyrie.control.alerts.figures import Unit

When = Literal[
    "drop-rate",
    "drop-share",
    "shadow-rate",
    "top-talker",
    "table-full",
    "table-evicting",
    "nic-detached",
    "nic-down",
    "store-switched",
    "store-none",
    "breaker-open",
    "sync-lag",
    "credential-old",
    "daemon-restarted",
    "events-lost",
    "event",
]
Subject = Literal["limit", "nic", "credential", "store", "source", "event", ""]
SeverityWord = Literal["info", "warning", "error", "critical"]


@dataclass(frozen=True)
class Kind:
    """`meaning` completes "fires while". An alert is made for each `subject`; "" has one alone. The texts are
    what a rule says that leaves them out; `above` None: it must say. `at_least`: a floor below which there
    is too little traffic to judge. `moment`: it is so for a moment only, and has no `for`.
    """

    meaning: str
    unit: Unit
    subject: Subject = ""
    above: str | None = None
    at_least: str | None = None
    lasts: str = "1m"
    clear_after: str = "5m"
    severity: SeverityWord = "warning"
    moment: bool = False


KINDS: dict[When, Kind] = {
    "drop-rate": Kind("a limit drops more packets a second than `above`", "rate", "limit"),
    "drop-share": Kind(
        "a limit drops a larger share of what it matches than `above`, and matches `at_least` so much",
        "share", "limit", "20%", "10/s",
    ),
    "shadow-rate": Kind("a shadow limit would drop more packets a second than `above`", "rate", "limit"),
    "top-talker": Kind(
        "one source has a larger share of the drops than `above`, of `at_least` so many in all",
        "share", "source", "50%", "100/s", "10s",
    ),
    "table-full": Kind("more of the table's buckets are in use than `above`", "share", "", "80%"),
    "table-evicting": Kind(
        "newcomers take over buckets in use more often than `above`", "rate", "", "10/s", lasts="30s"
    ),
    "nic-detached": Kind(
        "an interface that is to be policed is without the program", "fact", "nic", lasts="10s",
        clear_after="10s", severity="critical",
    ),
    "nic-down": Kind(
        "an interface that is to be policed is there and its link is down", "fact", "nic", lasts="10s",
        clear_after="1m", severity="error",
    ),
    "store-switched": Kind(
        "another store than the first of the chain is in use, or was for a moment", "fact", "", lasts="0s",
        clear_after="1m",
    ),
    "store-none": Kind(
        "no store of the chain serves: `when_all_fail` decides", "fact", "", lasts="10s", clear_after="1m",
        severity="error",
    ),
    "breaker-open": Kind(
        "a store's circuit breaker is open, or was for a moment", "fact", "store", lasts="0s",
        clear_after="2m",
    ),
    "sync-lag": Kind(
        "what is kept in the store is behind the kernel by more than `above`", "time", "", "60s",
        lasts="10s", clear_after="30s",
    ),
    "credential-old": Kind(
        "a credential's newest version is older than `above`", "time", "credential", "90d", lasts="0s",
        clear_after="1s",
    ),
    "daemon-restarted": Kind(
        "valkyried was started again, up to `clear_after` ago", "fact", "", lasts="0s", clear_after="10m",
        severity="info", moment=True,
    ),
    "events-lost": Kind(
        "the kernel finds no room for more events a second than `above`", "rate", "", "100/s"
    ),
    "event": Kind(
        "a note of the kind `event` was told, up to `clear_after` ago; of drop events there are none",
        "fact", "event", lasts="0s", clear_after="1m", moment=True,
    ),
}  # fmt: skip
assert tuple(KINDS) == get_args(When), "one catalogue, in one order"
