# SPDX-License-Identifier: Apache-2.0
"""Many buckets into the kernel's table, limit by limit, by the program `call`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from valkyrie.control.dataplane.call import Caller
from valkyrie.control.dataplane.keyname import Record
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
            with contextlib.suppress(NotFound):
                done += caller.restore(uid, specs[uid], _levels(entries[entries["uid"] == uid]))
    return done


def _levels(entries: Entries) -> Iterator[tuple[Record, int]]:
    raw = entries["addr"].tobytes()
    rows = zip(entries["dport"].tolist(), entries["pair6"].tolist(), entries["level"].tolist(), strict=True)
    for at, (dport, pair6, level) in enumerate(rows):
        yield Record(dport, raw[at * 16 : at * 16 + 16], pair6), level
