# SPDX-License-Identifier: Apache-2.0
"""Another release is installed over the one that polices, under traffic."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.lab import Lab
from support.sender import Sender
from support.whole import Whole, until

NIC = "data4"
BURST = 20
VERSION = "0.99.0"
OTHER = "/root/other-release"
PINGS = ("--count", "100000", "--rate", "50", "--seconds", "600")  # ended when the other release runs
# Of this checkout: a copy with another program for packets, with maps of the same layout or of another one.
COPY = """
set -e
rm -rf "$1"
cp -a "$2" "$1"
cd "$1"
sed -i 's/^version = .*/version = "'"$3"'"/' pyproject.toml
"""
NEW = {
    "program": "printf '/* another release */\\n' >>bpf/valkyrie.bpf.c",
    "layout": "sed -i 's/\\(ABI_VERSION\\(: Final =\\)\\?\\) [0-9]*$/\\1 99/' bpf/abi.h control/abi.py",
}


@pytest.fixture
def restored(whole: Whole) -> Iterator[None]:
    """Afterwards the checkout's own release runs again, with tables of its own."""
    yield
    whole.host.told("sh", "-c", f"cd {whole.lab.source} && ./appliance uninstall --purge", timeout=120)
    whole.install()
    whole.host.told("rm", "-rf", OTHER)


@pytest.mark.usefixtures("restored")
def test_an_upgrade_forgets_no_bucket_and_opens_no_gate(lab: Lab, whole: Whole) -> None:
    whole.limit("echo", match="icmp-type echo-request", key="src", rate="1/h", burst=str(BURST))
    whole.attach(NIC)
    assert whole.status()["version"] != VERSION
    assert upgraded(lab, whole, NEW["program"]) == BURST
    assert upgraded(lab, whole, NEW["layout"]) == 0


def upgraded(lab: Lab, whole: Whole, change: str) -> int:
    """Install a copy with a change while pings come in: how many are answered, first to last."""
    _, before = whole.program(NIC)
    sender = Sender(lab, NIC)
    whole.host.told("sh", "-c", COPY + change, "copy", OTHER, lab.source, VERSION)
    with sender.start("ping", *PINGS) as pings:
        until(lambda: whole.counters("echo")["dropped"] > 0, "the bucket is empty", 60)
        whole.install(OTHER)
        met = whole.counters("echo")["matched"]
        until(lambda: whole.counters("echo")["matched"] > met + 50, "the new release polices", 60)
        answered: int = pings.stopped()["total"]["answered"]
    status = whole.status()
    assert (status["version"], status["program"]["how"]) == (VERSION, "upgraded")
    mode, after = whole.program(NIC)
    assert mode == "native"
    assert after not in (0, before)
    assert whole.keys("echo") == [sender.wire.client4]
    return answered
