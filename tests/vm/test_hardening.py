# SPDX-License-Identifier: Apache-2.0
"""What systemd itself says of the unit on a machine that it has booted."""

import re

import pytest

from support.whole import UNIT, Whole

MOST = 4.0


@pytest.mark.quick
def test_systemd_finds_the_service_s_exposure_small(whole: Whole) -> None:
    told = whole.host.told("systemd-analyze", "security", "--no-pager", UNIT)
    found = re.search(rf"Overall exposure level for {re.escape(UNIT)}: ([0-9.]+)", told)
    assert found is not None, told
    assert 0 < float(found[1]) <= MOST, told


@pytest.mark.quick
def test_no_unit_has_failed_and_the_service_tells_of_no_error(whole: Whole) -> None:
    assert whole.host.told("systemctl", "list-units", "--failed", "--no-legend", "--plain") == ""
    said = whole.host.told("journalctl", "-b", "-u", UNIT, "-p", "err", "-o", "cat", "--no-pager", "--quiet")
    assert said == ""
