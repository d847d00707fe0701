# SPDX-License-Identifier: Apache-2.0
"""The program's explanation of a packet, in tokens and names. Pure.

The program tells what buckets say. A packet that finds its bucket empty passes all the same on a CPU that
has bought enough tokens of it ahead (bpf/lease.h), so which CPU it comes to can decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from valkyrie.control.cost import UNITS_A_NS
from valkyrie.control.dataplane.explain import Explanation
from valkyrie.control.enums import Reason
from valkyrie.control.limits import Limit


@dataclass(frozen=True)
class Asked:
    """A limit that packets are held against: its slot, how many tokens the packet takes of it, and its
    position in the explanation.
    """

    limit: Limit
    slot: int
    tokens: int
    position: int


def in_words(answer: Explanation, asked: Sequence[Asked]) -> dict[str, Any]:
    """`passes_on`: CPUs on which the packet passes though the verdict is drop."""
    said = [_limit(one, answer) for one in asked]
    passes_on = []
    if answer.reason == Reason.LIMIT:
        passes_on = [cpu for place, cpu in enumerate(answer.cpus) if _passes(said, place)]
    told = [{**one, "leased": [lease for lease in one["leased"] if lease["tokens"]]} for one in said]
    if len(passes_on) == len(answer.cpus):
        return {"verdict": "pass", "reason": "conforms", "limit": None, "passes_on": [], "limits": told}
    return {
        "verdict": "drop" if answer.drops else "pass",
        "reason": answer.reason.name.lower(),
        "limit": next((one.limit.name for one in asked if one.slot == answer.slot), None),
        "passes_on": passes_on,
        "limits": told,
    }


def _passes(said: Sequence[dict[str, Any]], place: int) -> bool:
    """Whether no limit that matches drops the packet on the CPU at this place."""
    return all(
        one["conforms"] or one["action"] == "shadow" or one["leased"][place]["enough"]
        for one in said
        if one["matched"]
    )


def _limit(one: Asked, answer: Explanation) -> dict[str, Any]:
    row, ahead = answer.limits[one.position], answer.ahead[one.position].tolist()
    cost, level, tau = (int(row[name]) for name in ("cost", "level", "tau"))
    matched, full = bool(row["matched"]), bool(row["conforms"])
    known = matched and cost > 0
    leased = [
        {"cpu": cpu, "tokens": left * one.tokens // cost if known else 0, "enough": known and left >= cost}
        for cpu, left in zip(answer.cpus, ahead, strict=True)
    ]
    conforms = full or (matched and all(lease["enough"] for lease in leased))
    return {
        "name": one.limit.name,
        "action": one.limit.action,
        "matched": matched,
        "conforms": conforms,
        "tokens_left": max(0, tau - level) * one.tokens // cost if known else 0,
        "burst": tau * one.tokens // cost if known else 0,
        "retry_after_ns": max(0, -(-(level + cost - tau) // UNITS_A_NS)) if matched and not conforms else 0,
        "leased": leased,
    }
