# SPDX-License-Identifier: Apache-2.0
"""Fragments, whole and forged, against what a limit says of them; the guest's kernel puts them together."""

import pytest

from harness.lab import Lab
from support.sender import Sender, serving
from support.whole import Whole

NIC = "data4"
EACH = 40  # packets of each kind: whole ones in three parts, tiny first parts, overlapping parts
PARTS = 3
UDP = "proto udp dport 7007"
WORDS = ("--count", str(3 * EACH), "--rate", "300")
# What a limit on a port is asked about, of two kinds whose first parts have ports and whose others have none.
MATCHED = {"skip": 2 * EACH, "match": 2 * EACH * PARTS, "only": 2 * EACH * PARTS, "never": 0}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("asked", MATCHED)
def test_a_limit_is_asked_about_the_fragments_that_it_names(
    lab: Lab, whole: Whole, asked: str, version: int
) -> None:
    whole.limit("parts", match=f"{UDP} fragments {asked}", key="dst", rate="1000/s", burst="100000")
    whole.attach(NIC)
    before = whole.reasons()
    with serving(lab) as server:
        report = Sender(lab, NIC).send("fragments", *WORDS, version=version)
        counters = whole.settled("parts", MATCHED[asked])
        arrived = server.stopped()
    assert (counters["matched"], counters["dropped"]) == (MATCHED[asked], 0)
    # A first part without its whole TCP header is malformed, and dropped; its second part is none of ours.
    assert whole.reasons()["bad_fragment"] - before["bad_fragment"] == EACH
    assert report["kinds"][f"frag{version}"]["answered"] == EACH
    assert arrived["kinds"] == {f"frag{version}": {"arrived": EACH, "duplicated": 0}}


@pytest.mark.parametrize("version", [4, pytest.param(6, marks=pytest.mark.quick)])
def test_a_limit_on_fragments_holds_all_of_them_and_no_whole_packet(
    lab: Lab, whole: Whole, version: int
) -> None:
    burst = 2 * PARTS  # two packets' worth
    whole.limit("parts", match="proto udp fragments only", key="dst", rate="1/h", burst=str(burst))
    whole.attach(NIC)
    sender = Sender(lab, NIC)
    with serving(lab) as server:
        report = sender.send("fragments", *WORDS, version=version)
        users = sender.send("legit", "--count", "60", "--rate", "300", version=version)
        counters = whole.settled("parts", MATCHED["only"])
        arrived = server.stopped()
    assert (counters["passed"], counters["dropped"]) == (burst, MATCHED["only"] - burst)
    # One packet's worth of tokens went to the overlapping parts that came in between.
    assert report["kinds"][f"frag{version}"]["answered"] == 1
    assert arrived["kinds"][f"frag{version}"]["arrived"] == 1
    assert users["total"]["answered"] == 60
