# SPDX-License-Identifier: Apache-2.0
"""Many buckets into the kernel's table, limit by limit, by the program `call`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.dataplane.call import Caller
from valkyrie.control.dataplane.keyname import Record, paired
from valkyrie.control.durable.names import Entries
from valkyrie.control.errors import NotFound
from valkyrie.control.key import KeySpec


def restore(pin_dir: Path, entries: Entries, specs: Mapping[int, KeySpec]) -> int:
    """Raise the TATs of these buckets, making those that are not there; how many were in force.

    A limit that was taken out of force meanwhile is passed over.
    """
    done = 0
    with Caller(pin_dir) as caller:
        for uid in np.unique(entries["uid"]).tolist():
            mine = entries[entries["uid"] == uid]
            with contextlib.suppress(NotFound):
                if specs[uid].id or not paired(specs[uid]):
                    caller.restore_entries(uid, single_ended(mine, specs[uid]))
                else:
                    caller.restore(uid, specs[uid], _levels(mine))
                done += len(mine)
    return done


def single_ended(entries: Entries, spec: KeySpec) -> NDArray[Any]:
    """call_entry.entry_of for many buckets at once, of a limit whose keys have one end."""
    made = np.zeros(len(entries), abi.CALL_ENTRY)
    end = "dst" if spec.dst4 is not None and not spec.id else "src"
    made[end] = np.ascontiguousarray(entries["addr"]).view(np.uint64)
    made["dport"] = entries["dport"]
    made["amount"] = entries["level"]
    return made


def _levels(entries: Entries) -> Iterator[tuple[Record, int]]:
    raw = entries["addr"].tobytes()
    rows = zip(entries["dport"].tolist(), entries["pair6"].tolist(), entries["level"].tolist(), strict=True)
    for at, (dport, pair6, level) in enumerate(rows):
        yield Record(dport, raw[at * 16 : at * 16 + 16], pair6), level
