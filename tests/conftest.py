# SPDX-License-Identifier: Apache-2.0
"""Options and settings of the whole suite."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# A shared machine may be slow at any moment: time limits would only make failures of it.
settings.register_profile(
    "valkyrie", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("valkyrie")

# A shell starts what it sends to the background with SIGINT ignored, and children inherit that: tests that
# interrupt a command would wait for its end for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-count",
        type=int,
        default=int(os.environ.get("VALKYRIE_FUZZ", "100000")),
        help="packets of the fuzzer (or the variable VALKYRIE_FUZZ); 10000000 in the long run",
    )
    parser.addoption(
        "--fuzz-seed",
        type=int,
        default=int(os.environ.get("VALKYRIE_FUZZ_SEED", "1")),
        help="where the fuzzer's random numbers begin (or VALKYRIE_FUZZ_SEED)",
    )
