# SPDX-License-Identifier: Apache-2.0
"""Ask the loaded program itself about a packet, without taking tokens."""

import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, packet, pins
from valkyrie.control.dataplane.maps import Array, Dataplane
from valkyrie.control.dataplane.source import cpu_numbers
from valkyrie.control.enums import Reason
from valkyrie.control.errors import DataplaneError, NotFound

META = struct.Struct("=QQIHH")  # struct test_control: magic, now, flags, reason, slot
XDP_DROP = 1
UNANSWERED = 0xFFFF
ONLINE = Path("/sys/devices/system/cpu/online")
TRIES = 16


@dataclass(frozen=True)
class Explanation:
    """The program's answer, by what buckets hold. `slot` names the limit that would drop the packet, None if
    none would; `limits` is abi.EXPLANATION by position of the ruleset in force. `ahead`: the time units that
    each of the `cpus` has bought ahead of each limit's bucket, (positions, cpus). Packets come to no others.
    """

    drops: bool
    reason: Reason
    slot: int | None
    limits: Array
    cpus: tuple[int, ...]
    ahead: Array


def run(dp: Dataplane, asked: packet.Packet) -> Explanation:
    """What the program says of the packet now. One call at a time: the answers lie in one table.

    Raises NotFound for an unknown NIC, DataplaneError if the program gave no answer.
    """
    ifindex = 0
    if asked.iface is not None:
        try:
            ifindex = socket.if_nametoindex(asked.iface)
        except (OSError, ValueError) as error:
            raise NotFound(f"there is no NIC {asked.iface[:64]}", "see `ip link`") from error
    magic = int(dp.control["test_magic"][0])
    frame = packet.build(asked)
    question = META.pack(magic, 0, abi.TEST_EXPLAIN, UNANSWERED, abi.NO_SLOT)
    reason = UNANSWERED
    # Kernels that let a packet in between lose the question with the working memory: ask again.
    for _ in range(TRIES):
        dp.explanations[:] = 0
        action, after, _ = bpf.test_run(dp.fd(pins.PROGRAM), frame, ctx=question, ifindex=ifindex)
        if len(after) >= META.size:
            _, _, _, reason, slot = META.unpack_from(after)
        if reason != UNANSWERED:
            break
    else:
        raise DataplaneError("the program gave no answer", "restart valkyried: it builds the program anew")
    count = min(int(dp.rulesets["limits"][dp.active]), abi.MAX_LIMITS)
    limits = dp.explanations[:count].copy()
    cpus = cpu_numbers(ONLINE.read_text())
    return Explanation(
        action == XDP_DROP,
        Reason(reason),
        None if slot == abi.NO_SLOT else slot,
        limits,
        cpus,
        _ahead(dp, limits, time.monotonic_ns())[:, cpus],
    )


def _ahead(dp: Dataplane, limits: Array, now_ns: int) -> Array:
    leases = dp.leases.reshape(dp.sizes.cpus, abi.LEASES)
    found = np.zeros((len(limits), dp.sizes.cpus), np.uint64)
    for position in np.flatnonzero(limits["matched"]):
        row = limits[position]
        if not _leases(dp, int(position), int(row["tau"])):
            continue
        mine = leases["fingerprint"] == row["fingerprint"]
        mine &= leases["valid_until"] > np.uint64(now_ns << abi.TIME_SHIFT)
        found[position] = np.where(mine, leases["left"], np.uint64(0)).sum(axis=1)
    return found


def _leases(dp: Dataplane, position: int, tau: int) -> bool:
    """Whether the plan of this capacity, the limit's or an override's, is one that CPUs buy ahead under."""
    own = dp.limits[dp.active, position]["plan"]
    if int(own["tau"]) == tau:
        return bool(own["batch"])
    plans = dp.generation("plans", dp.active)
    return bool((plans["batch"][plans["tau"] == np.uint64(tau)] > 0).any())
