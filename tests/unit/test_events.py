# SPDX-License-Identifier: Apache-2.0
"""Reading drop events, and the catalogue of all."""

import numpy as np

from support.ctl import ROOT
from valkyrie.control import abi
from valkyrie.control.dataplane.events import decode, known
from valkyrie.control.dataplane.ring import Records
from valkyrie.control.enums import Reason
from valkyrie.control.notes import with_catalogue


def of_reason(reason: int) -> Records:
    one = np.zeros(1, abi.EVENT)
    one["reason"] = reason
    one["slot"] = abi.NO_SLOT
    return one


def test_the_catalogue_of_events_in_docs_is_current() -> None:
    page = (ROOT / "docs" / "counters.md").read_text()
    assert with_catalogue(page) == page, "run: python -m valkyrie.control.notes docs/counters.md"


def test_every_reason_is_read() -> None:
    for reason in Reason:
        (record,) = known(of_reason(reason))
        event = decode(record)
        assert event.reason is reason
        assert event.slot is None


def test_a_reason_that_is_not_known_is_passed_over() -> None:
    assert len(known(of_reason(len(Reason)))) == 0
    assert len(known(of_reason(255))) == 0
