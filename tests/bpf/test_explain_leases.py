# SPDX-License-Identifier: Apache-2.0
"""An explanation knows what CPUs have bought ahead: it says pass where the packet would, and on which CPU."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from support.bpf import XDP_DROP, XDP_PASS, Kernel, on_cpu
from support.policy import Published, limit, publish
from valkyrie.control.dataplane import explain, packet
from valkyrie.control.limits import Limit
from valkyrie.control.service.explained import Asked, in_words

CPUS = sorted(os.sched_getaffinity(0))
HELD = 4
"""Tokens that a CPU buys at once."""
ASKED = packet.parse("src 198.51.100.7 proto udp dport 53")

needs_two = pytest.mark.skipif(len(CPUS) < 2, reason="a packet that comes to another CPU needs another CPU")


def scarce(kernel: Kernel, name: str = "one", **fields: Any) -> Limit:
    """A limit that refills for nobody while a test lasts, and whose CPUs buy HELD tokens at once."""
    burst = 128 * kernel.dp.sizes.cpus * HELD
    return limit(name, **{"rate": "1/h", "burst": str(burst), "key": "global", **fields})


def told(kernel: Kernel, limits: list[Limit], published: Published) -> dict[str, Any]:
    answer = explain.run(kernel.dp, ASKED)
    order = published.compiled.order
    by_name = {one.name: one for one in limits}
    shown = [
        Asked(by_name[name], published.numbers[name].slot, 1, position) for position, name in enumerate(order)
    ]
    return in_words(answer, shown)


def run(kernel: Kernel) -> int:
    return kernel.run(packet.build(ASKED), time.monotonic_ns()).action


def emptied(kernel: Kernel, cpu: int) -> None:
    """Packets on this CPU until one is dropped."""
    with on_cpu(cpu):
        while run(kernel) == XDP_PASS:
            pass


@needs_two
def test_a_packet_is_said_to_pass_on_the_cpu_that_holds_tokens_and_does(kernel: Kernel) -> None:
    limits = [scarce(kernel)]
    published = publish(kernel, limits)
    here, there = CPUS[0], CPUS[-1]
    with on_cpu(there):
        assert run(kernel) == XDP_PASS
    emptied(kernel, here)
    for left in range(HELD - 1, 0, -1):
        said = told(kernel, limits, published)
        assert (said["verdict"], said["limit"], said["passes_on"]) == ("drop", "one", [there])
        assert said["limits"][0]["leased"] == [{"cpu": there, "tokens": left, "enough": True}]
        with on_cpu(here):
            assert run(kernel) == XDP_DROP
        with on_cpu(there):
            assert run(kernel) == XDP_PASS
    said = told(kernel, limits, published)
    assert (said["verdict"], said["passes_on"], said["limits"][0]["leased"]) == ("drop", [], [])
    with on_cpu(there):
        assert run(kernel) == XDP_DROP


@needs_two
def test_a_cpu_that_holds_tokens_of_one_limit_alone_lets_nothing_pass(kernel: Kernel) -> None:
    limits = [scarce(kernel), scarce(kernel, "two", key="src/24")]
    with_one = publish(kernel, limits[:1])
    with on_cpu(CPUS[-1]):
        assert run(kernel) == XDP_PASS
    emptied(kernel, CPUS[0])
    assert told(kernel, limits[:1], with_one)["passes_on"] == [CPUS[-1]]
    with_both = publish(kernel, [limits[0], scarce(kernel, "two", key="src/24", burst="1")])
    assert told(kernel, limits, with_both)["passes_on"] == [CPUS[-1]]
    with on_cpu(CPUS[-1]):
        assert [run(kernel) for _ in range(2)] == [XDP_PASS, XDP_DROP]
    said = told(kernel, limits, with_both)
    assert (said["verdict"], said["limit"], said["passes_on"]) == ("drop", "one", [])
    assert [bool(one["leased"]) for one in said["limits"]] == [True, False]


def test_where_every_cpu_holds_tokens_the_packet_passes(kernel: Kernel) -> None:
    limits = [scarce(kernel)]
    published = publish(kernel, limits)
    emptied(kernel, CPUS[0])
    assert told(kernel, limits, published)["verdict"] == "drop"
    leases = kernel.dp.leases.reshape(kernel.dp.sizes.cpus, -1)
    cpu, place = (int(found[0]) for found in leases["fingerprint"].nonzero())
    leases[:, place] = leases[cpu, place]
    leases["left"][:, place] = published.compiled.limits["plan"]["batch"][0]
    said = told(kernel, limits, published)
    assert (said["verdict"], said["reason"], said["limit"]) == ("pass", "conforms", None)
    assert (said["limits"][0]["conforms"], said["limits"][0]["retry_after_ns"]) == (True, 0)
    for each in CPUS:
        with on_cpu(each):
            assert run(kernel) == XDP_PASS


def test_cpus_that_are_off_get_no_packet_and_are_not_asked(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limits = [scarce(kernel)]
    published = publish(kernel, limits)
    with on_cpu(CPUS[0]):
        assert run(kernel) == XDP_PASS
    tau = int(published.compiled.limits["plan"]["tau"][0])
    kernel.dp.buckets["tat"][kernel.dp.buckets["fingerprint"] != 0] = (time.monotonic_ns() << 6) + tau
    (tmp_path / "online").write_text(f"{CPUS[0]}\n")
    monkeypatch.setattr(explain, "ONLINE", tmp_path / "online")
    assert told(kernel, limits, published)["verdict"] == "pass"
    with on_cpu(CPUS[0]):
        assert run(kernel) == XDP_PASS


@needs_two
def test_a_plan_without_leases_spends_none(kernel: Kernel) -> None:
    limits = [scarce(kernel)]
    publish(kernel, limits)
    with on_cpu(CPUS[-1]):
        assert run(kernel) == XDP_PASS
    emptied(kernel, CPUS[0])
    limits = [scarce(kernel, burst="1")]
    published = publish(kernel, limits)
    assert told(kernel, limits, published)["passes_on"] == []
    with on_cpu(CPUS[-1]):
        assert run(kernel) == XDP_DROP
