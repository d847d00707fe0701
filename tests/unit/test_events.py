# SPDX-License-Identifier: Apache-2.0
"""Reading drop events."""

import numpy as np

from valkyrie.control import abi
from valkyrie.control.dataplane.events import decode
from valkyrie.control.enums import Reason


def raw_event(reason: int) -> bytes:
    one = np.zeros(1, abi.EVENT)
    one["reason"] = reason
    one["slot"] = abi.NO_SLOT
    return one.tobytes()


def test_every_reason_is_read() -> None:
    for reason in Reason:
        event = decode(raw_event(reason))
        assert event is not None
        assert event.reason is reason
        assert event.slot is None


def test_a_reason_that_is_not_known_is_passed_over() -> None:
    assert decode(raw_event(len(Reason))) is None
    assert decode(raw_event(255)) is None
