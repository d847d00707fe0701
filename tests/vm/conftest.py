# SPDX-License-Identifier: Apache-2.0
"""The lab that --lab tells of: an appliance that is a whole machine, a client, and the links between them.

Run by `sudo ./appliance vm-test`; in a lab that is up: pytest tests/vm --lab FILE.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import lab as labs
from harness.errors import VmError
from harness.lab import Lab
from support.whole import Whole

STILL_THERE_S = 60.0
HANGS = 3  # pytest's exit code for what is not a test's failure


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lab", type=Path, metavar="FILE", help="the lab's file, as vm/run writes it")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: part of `./appliance vm-test --quick`, which CI runs")


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Lab:
    file = pytestconfig.getoption("--lab", None)
    if file is None:
        pytest.skip("these tests need a lab: sudo ./appliance vm-test, or --lab FILE")
    found = labs.read(file)
    found.wait_ssh()
    return found


@pytest.fixture(scope="session")
def appliance(lab: Lab) -> Iterator[Whole]:
    """The appliance, after the last test with nothing attached and no limits."""
    found = Whole(lab)
    yield found
    found.clear()


@pytest.fixture
def whole(appliance: Whole) -> Whole:
    """The appliance with nothing attached and no limits. What a test leaves, the next one removes."""
    appliance.clear()
    return appliance


@pytest.hookimpl(trylast=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """A guest that hangs fails every test that follows, each after its own patience: end at the first."""
    if call.excinfo is None or call.excinfo.errisinstance(pytest.skip.Exception):
        return
    found = getattr(item, "funcargs", {}).get("lab")
    if found is None:
        return
    try:
        found.wait_ssh(STILL_THERE_S)
    except VmError as error:
        pytest.exit(f"{item.nodeid}: {error}", returncode=HANGS)
