# SPDX-License-Identifier: Apache-2.0
"""The mapped tables of a small program: rulesets, NICs, events, counters."""

import asyncio
import os
from pathlib import Path

import pytest

from support.small_program import FRAME, SIZES, ruleset, verdict
from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, explain, packet, pins, stats
from valkyrie.control.dataplane.events import EventReader
from valkyrie.control.dataplane.maps import Dataplane, initialise
from valkyrie.control.enums import Reason
from valkyrie.control.errors import Conflict, DataplaneError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")


def test_a_published_ruleset_is_in_force_at_once_and_alternates_generations(dp: Dataplane) -> None:
    for serial in range(1, 7):
        dp.publish(ruleset(serial, drop=serial % 2 == 1))
        assert verdict(dp) == (1 if serial % 2 else 2)
        assert (dp.serial, dp.active) == (serial, serial % 2)


def test_a_ruleset_that_does_not_fit_is_refused_whole(dp: Dataplane) -> None:
    dp.publish(ruleset(1, drop=True))
    with pytest.raises(DataplaneError, match="257 nodes, the table has room for 256"):
        dp.publish(ruleset(2, nodes=257))
    assert (dp.serial, verdict(dp)) == (1, 1)


def test_an_adopted_table_keeps_its_secret(dp: Dataplane) -> None:
    assert initialise(dp, (1, 2), 3) is True
    with Dataplane(dp.pin_dir) as again:
        assert initialise(again, (7, 8), 9) is False
        assert again.control["secret"][0].tolist() == [1, 2]
        assert int(again.control["test_magic"][0]) == 3


def test_a_table_of_another_abi_is_refused(dp: Dataplane) -> None:
    dp.control["abi"] = abi.ABI_VERSION + 1
    with pytest.raises(Conflict, match=f"speaks ABI {abi.ABI_VERSION + 1}"):
        initialise(dp, (1, 2), 3)


def test_nics_are_set_listed_and_forgotten(dp: Dataplane) -> None:
    dp.set_nic(4, 1)
    dp.set_nic(9, 63)
    assert dp.nics() == {4: 1, 9: 63}
    assert dp.forget_nic(4) is True
    assert dp.forget_nic(4) is False
    with pytest.raises(DataplaneError):
        dp.set_nic(1, 64)


def test_the_programs_own_answer_comes_back_by_metadata(dp: Dataplane) -> None:
    initialise(dp, (1, 2), 3)
    dp.publish(ruleset(1, drop=True))
    answer = explain.run(dp, packet.parse("proto udp iface lo"))
    assert (answer.drops, answer.reason, answer.slot) == (True, Reason.LIMIT, 1)


async def test_events_come_in_order_and_the_ring_wraps_without_loss(dp: Dataplane) -> None:
    with EventReader(dp.pin_dir) as reader:
        reader.read(100_000)
        seen: list[int] = []
        expected: list[int] = []
        rounds = 2 * abi.EVENT_RING_BYTES // (abi.EVENT.itemsize + 8) // 400 + 1
        for _ in range(rounds):
            for length in range(60, 460):
                bpf.test_run(dp.fd(pins.PROGRAM), bytes(length))
            expected += range(60, 460)
            while found := reader.read(100):
                seen += [event.sport for event in found]
        assert seen == expected
        bpf.test_run(dp.fd(pins.PROGRAM), bytes(77))
        async for event in reader.events():
            assert (event.sport, event.reason, event.slot) == (77, Reason.BAN, None)
            break


async def test_events_that_never_end_leave_the_loop_to_others(dp: Dataplane) -> None:
    async def other() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    with EventReader(dp.pin_dir) as reader:
        reader.read(100_000)
        bpf.test_run(dp.fd(pins.PROGRAM), FRAME)
        task, seen = asyncio.ensure_future(other()), 0
        async for _ in reader.events():
            bpf.test_run(dp.fd(pins.PROGRAM), FRAME)
            seen += 1
            if task.done() or seen > 1000:
                break
        assert task.done()


def test_counters_are_summed_over_cpus(dp: Dataplane) -> None:
    dp.limit_stats["dropped"][:, 5] = 7
    dp.reason_stats["bytes"][:, Reason.BAN] = 3
    dp.table_stats["bans"] = 2
    assert stats.limits(dp)["dropped"][5] == 7 * SIZES.cpus
    assert stats.reasons(dp)["bytes"][Reason.BAN] == 3 * SIZES.cpus
    assert stats.table(dp)["bans"] == 2 * SIZES.cpus
    stats.zero(dp, {5})
    assert stats.limits(dp)["dropped"].sum() == 0


def test_nothing_stays_open_after_close(built: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with Dataplane(built) as dp, EventReader(built) as reader:
            verdict(dp)
            reader.read()
            dp.nics()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
