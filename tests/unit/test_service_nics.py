# SPDX-License-Identifier: Apache-2.0
"""Attaching, trials and what becomes of NICs, over a real state and a data plane in memory."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.fake_engine import refused
from support.workbench import ADMIN, Bench
from valkyrie.control.dataplane.watch import LinkEvent
from valkyrie.control.errors import DataplaneError, Foreign, InvalidInput, NotFound, StateError
from valkyrie.control.lifecycle import watch_links
from valkyrie.control.service.service import Service


async def test_attaching_protects_before_the_program_is_on(bench: Bench) -> None:
    bench.engine.calls.clear()
    shown = await bench.service.nics.attach(
        ADMIN, "eth1", mode="auto", confirm=None, replacing=False, protect=["203.0.113.9"]
    )
    assert bench.engine.calls == ["publish", "attach"]
    assert shown["attached"]
    assert shown["mode"] == "native"
    assert bench.service.core.world.protects(bench.settings.protect) == ("192.0.2.254/32", "203.0.113.9/32")


async def attach(service: Service, nic: str, confirm: str | None = None, **given: Any) -> Any:
    return await service.nics.attach(
        ADMIN, nic, **{"mode": "auto", "confirm": confirm, "replacing": False, "protect": [], **given}
    )


async def test_somebody_elses_program_is_left_and_nothing_is_remembered(bench: Bench) -> None:
    bench.engine.links["eth1"] = "foreign"
    with pytest.raises(Foreign) as caught:
        await attach(bench.service, "eth1")
    assert "id 7" in caught.value.what
    assert bench.engine.links["eth1"] == "foreign"
    assert bench.service.core.state.nics() == {}
    await attach(bench.service, "eth1", replacing=True)
    assert bench.engine.links["eth1"] == "ours"


async def test_a_failed_change_of_an_attached_nic_leaves_it_as_it_was(bench: Bench) -> None:
    await attach(bench.service, "eth1", protect=["203.0.113.9"])
    before = bench.service.core.state.nics()
    bench.engine.fail["attach"] = refused()
    with pytest.raises(DataplaneError):
        await attach(bench.service, "eth1", mode="generic")
    assert bench.service.core.state.nics() == before


async def test_after_a_restart_what_is_missing_is_attached_again(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    await attach(bench.service, "eth2")
    bench.engine.links["eth1"] = ""
    del bench.engine.links["eth2"]
    service = await bench.again()
    assert bench.engine.links["eth1"] == "ours"
    states = {nic["nic"]: nic["attached"] for nic in await service.nics.list()}
    assert states == {"eth1": True, "eth2": False}
    bench.engine.links["eth2"] = ""
    assert await service.nics.restore() == ["eth2: attached again, in native mode"]
    assert await service.nics.restore() == []


async def test_a_nic_that_cannot_be_attached_again_is_said_once(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    bench.engine.links["eth1"] = "foreign"
    said = await bench.service.nics.restore()
    assert len(said) == 1
    assert "cannot be attached" in said[0]
    assert await bench.service.nics.restore() == []
    (shown,) = await bench.service.nics.list()
    assert "another XDP program" in shown["problem"]


async def test_detach_is_remembered(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    await bench.service.nics.detach(ADMIN, "eth1")
    assert bench.engine.links["eth1"] == ""
    await bench.again()
    assert bench.engine.links["eth1"] == ""
    with pytest.raises(NotFound):
        await bench.service.nics.detach(ADMIN, "eth1")


async def test_a_detach_that_was_cut_short_is_finished_at_start(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    bench.engine.fail["detach"] = refused()
    with pytest.raises(DataplaneError):
        await bench.service.nics.detach(ADMIN, "eth1")
    assert bench.engine.links["eth1"] == "ours"
    await bench.again()
    assert bench.engine.links["eth1"] == ""


async def test_detach_takes_the_program_off_though_the_disk_is_full(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    connection = bench.service.core.state._database.connection
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StateError, match="eth1 is detached, but that could not be written"):
        await bench.service.nics.detach(ADMIN, "eth1")
    assert bench.engine.links["eth1"] == ""
    assert await bench.service.nics.restore() == []
    assert bench.engine.links["eth1"] == ""
    connection.execute("PRAGMA query_only = OFF")
    await bench.service.nics.detach(ADMIN, "eth1")
    await attach(bench.service, "eth1")
    assert bench.engine.links["eth1"] == "ours"


async def test_closing_takes_nothing_off(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    await bench.service.close()
    assert bench.engine.closed
    assert bench.engine.links["eth1"] == "ours"


async def test_an_unconfirmed_trial_ends_and_a_confirmed_one_does_not(bench: Bench) -> None:
    await attach(bench.service, "eth1", confirm="60s")
    await attach(bench.service, "eth2", confirm="60s")
    await bench.service.nics.confirm(ADMIN, "eth2")
    assert bench.service.nics.next_deadline() == 60
    assert await bench.service.nics.expire() == []
    bench.time.now += 60
    assert await bench.service.nics.expire() == ["eth1"]
    assert bench.engine.attached() == {"eth2": "native"}
    assert bench.service.nics.next_deadline() is None


async def test_a_trial_that_ran_out_while_the_daemon_was_dead_ends_at_start(bench: Bench) -> None:
    await attach(bench.service, "eth1", confirm="60s")
    await attach(bench.service, "eth2", confirm="2m")
    bench.time.now += 61
    service = await bench.again()
    assert bench.engine.attached() == {"eth2": "native"}
    assert service.nics.next_deadline() == 59


async def test_a_trial_ends_though_the_disk_is_full(bench: Bench) -> None:
    await attach(bench.service, "eth1", confirm="60s")
    bench.time.now += 61
    bench.service.core.state._database.connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StateError):
        await bench.service.nics.expire()
    assert bench.engine.links["eth1"] == ""
    assert await bench.service.nics.restore() == []
    assert bench.engine.links["eth1"] == ""


@pytest.mark.parametrize("moved", [-86400.0, 86400.0])
async def test_setting_the_wall_clock_neither_prolongs_a_trial_nor_cuts_it_short(
    bench: Bench, moved: float
) -> None:
    await attach(bench.service, "eth1", confirm="60s")
    assert bench.service.nics.next_deadline() == 60
    bench.time.set_by = moved
    bench.time.now += 30
    assert bench.service.nics.next_deadline() == 30
    assert await bench.service.nics.expire() == []
    bench.time.now += 30
    assert await bench.service.nics.expire() == ["eth1"]


async def test_a_trial_that_cannot_be_ended_keeps_no_other_from_ending(bench: Bench) -> None:
    await attach(bench.service, "eth1", confirm="60s")
    await attach(bench.service, "eth2", confirm="60s")
    bench.time.now += 61
    bench.engine.fail["detach eth1"] = refused()
    with pytest.raises(DataplaneError):
        await bench.service.nics.expire()
    assert bench.engine.attached() == {"eth1": "native"}
    bench.engine.fail.clear()
    assert await bench.service.nics.expire() == ["eth1"]


async def test_a_nic_that_could_not_be_attached_is_tried_again_by_itself(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    bench.engine.links["eth1"] = ""
    bench.engine.fail["attach"] = refused()
    await bench.service.nics.restore()
    assert bench.engine.attached() == {}
    bench.engine.fail.clear()
    await bench.service.sweep()
    assert bench.engine.attached() == {"eth1": "native"}
    (shown,) = await bench.service.nics.list()
    assert shown["problem"] == ""


@pytest.mark.parametrize("confirm", ["0.5s", "25h", "soon"])
async def test_a_trial_of_a_wrong_length_is_refused(bench: Bench, confirm: str) -> None:
    with pytest.raises(InvalidInput):
        await attach(bench.service, "eth1", confirm=confirm)
    assert bench.service.core.state.nics() == {}


@pytest.mark.parametrize("name", ["", "a/b", "x" * 16, "..", "a\nb"])
async def test_no_interface_can_have_this_name(bench: Bench, name: str) -> None:
    with pytest.raises(InvalidInput):
        await attach(bench.service, name)


async def test_a_nic_that_is_renamed_stays_policed_and_is_told_by_both_names(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    bench.engine.rename("eth1", "wan0")
    assert await bench.service.nics.restore() == [
        "eth1: called wan0 now, and policed there; `detach` it and attach wan0 to change the name here"
    ]
    assert await bench.service.nics.restore(strays=True) == []
    (shown,) = await bench.service.nics.list()
    assert (shown["nic"], shown["attached"], shown["mode"]) == ("eth1", True, "native")
    assert "called wan0 now" in shown["problem"]
    assert not bench.service.nics.troubled
    await bench.service.nics.detach(ADMIN, "eth1")
    assert bench.engine.links["wan0"] == ""


async def test_a_nic_that_has_its_name_back_is_shown_and_detached_under_it(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    bench.engine.rename("eth1", "wan0")
    await bench.service.nics.restore()
    bench.engine.rename("wan0", "eth1")
    (shown,) = await bench.service.nics.list()
    assert (shown["attached"], shown["mode"]) == (True, "native")

    async def links() -> AsyncIterator[LinkEvent]:
        yield LinkEvent("changed", 2, "eth1", up=True, running=True, prog_id=1)

    await watch_links(bench.service, links(), lambda: 1)
    (shown,) = await bench.service.nics.list()
    assert shown["problem"] == ""


async def test_a_nic_renamed_back_unnoticed_is_detached_all_the_same(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    bench.engine.rename("eth1", "wan0")
    await bench.service.nics.restore()
    bench.engine.rename("wan0", "eth1")
    await bench.service.nics.detach(ADMIN, "eth1")
    assert bench.engine.links["eth1"] == ""


async def test_a_nic_renamed_unnoticed_is_detached_under_its_new_name(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    bench.engine.rename("eth1", "wan0")
    await bench.service.nics.detach(ADMIN, "eth1")
    assert bench.engine.links["wan0"] == ""


async def test_a_nic_whose_place_another_has_taken_is_shown_and_can_be_detached(bench: Bench) -> None:
    await attach(bench.service, "eth1")
    bench.engine.rename("eth1", "wan0")
    await bench.service.nics.restore()
    with pytest.raises(NotFound) as caught:
        await bench.service.nics.detach(ADMIN, "wan0")
    assert "detach eth1" in caught.value.hint
    bench.engine.links["eth1"] = ""
    bench.engine.slots.pop("wan0")  # as the kernel's engine does for the newcomer
    await bench.service.nics.restore()
    shown = {nic["nic"]: nic["problem"] for nic in await bench.service.nics.list()}
    assert shown["eth1"] == ""
    assert "nobody attached wan0" in shown["wan0"]
    await bench.service.nics.detach(ADMIN, "wan0")
    assert (bench.engine.links["eth1"], bench.engine.links["wan0"]) == ("ours", "")
    assert [nic["nic"] for nic in await bench.service.nics.list()] == ["eth1"]
