# SPDX-License-Identifier: Apache-2.0
"""The daemon's life: whatever happens to it, what is attached goes on, and no bucket is forgotten."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from support.appliance import PORT, Appliance
from support.netns import add_nic, delete_link
from support.way import SLOW, Way


def police(appliance: Appliance) -> Way:
    """Started, attached, and the bucket of the world's address used up."""
    appliance.start()
    appliance.done("PUT", "/v1/limits/slow", SLOW)
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    way = Way(appliance)
    assert way.passed(10) == 3
    return way


def test_kill_9_opens_no_gate_and_a_restart_adopts_and_forgets_no_bucket(appliance: Appliance) -> None:
    way = police(appliance)
    before = appliance.program()
    appliance.kill()
    assert way.passed(10) == 0
    appliance.start()
    assert appliance.program() == before
    assert appliance.done("GET", "/v1/status")["program"]["how"] == "adopted"
    assert way.passed(10) == 0
    (bucket,) = appliance.done("GET", "/v1/buckets?limit=slow")["buckets"]
    assert (bucket["key"], bucket["tokens_left"]) == ("10.9.0.2", 0)
    appliance.done("POST", "/v1/buckets/reset", {"limit": "slow", "key": "10.9.0.2"})
    assert way.passed(10) == 3


def test_a_store_whose_certificate_is_missing_keeps_no_packet_from_being_policed(
    appliance: Appliance,
) -> None:
    tls = {"ca": "/nowhere/ca.pem"}
    appliance.configure(store={"mode": "redis", "redis": {"url": "rediss://localhost:1", "tls": tls}})
    police(appliance)
    assert appliance.done("GET", "/v1/status")["sync"]["state"] == "away"
    appliance.stop()
    assert "store.redis.tls.ca" in appliance.said
    assert "policed all the same" in appliance.said


def test_sigterm_ends_well_and_leaves_enforcement_on(appliance: Appliance) -> None:
    way = police(appliance)
    assert appliance.stop() == 0
    assert not (appliance.folder / "v.sock").exists()
    assert appliance.program() != 0
    assert way.passed(10) == 0


def test_detach_opens_and_is_remembered(appliance: Appliance) -> None:
    way = police(appliance)
    appliance.done("DELETE", "/v1/nics/nic0")
    assert appliance.program() == 0
    assert way.passed(10) == 10
    appliance.stop()
    appliance.start()
    assert appliance.program() == 0


def test_what_was_taken_off_meanwhile_is_attached_again_at_start(appliance: Appliance) -> None:
    way = police(appliance)
    appliance.kill()
    subprocess.run(appliance.inside.namespace.command("ip", "link", "set", "nic0", "xdp", "off"), check=True)
    assert way.passed(1) == 1
    appliance.start()
    assert way.passed(10) == 0


def test_a_nic_that_is_made_again_is_attached_again_and_it_is_said(appliance: Appliance) -> None:
    appliance.start()
    add_nic(appliance.inside.namespace, "nic1")
    appliance.done("POST", "/v1/nics/nic1/attach", {"mode": "generic"})
    events = appliance.events()
    next(events)
    delete_link(appliance.inside.namespace, "nic1")
    assert any("gone" in event.get("what", "") for event in events)
    add_nic(appliance.inside.namespace, "nic1")
    assert any("nic1: attached again" in event.get("what", "") for event in events)
    assert appliance.program("nic1") != 0


def test_a_nic_that_is_renamed_stays_policed_also_over_a_restart(appliance: Appliance) -> None:
    way = police(appliance)
    events = appliance.events()
    next(events)
    # A NIC that is up can be renamed since Linux 6.2; before, only one that is down.
    for change in (("down",), ("name", "wan0")):
        appliance.link("nic0", *change)
    appliance.link("wan0", "up")
    assert any("nic0: called wan0 now" in event.get("what", "") for event in events)
    assert way.passed(10) == 0
    appliance.kill()
    appliance.start()
    assert appliance.program("wan0") != 0
    assert way.passed(10) == 0
    (shown,) = appliance.done("GET", "/v1/status")["nics"]
    assert (shown["nic"], shown["attached"]) == ("nic0", True)
    appliance.done("DELETE", "/v1/nics/nic0")
    assert appliance.program("wan0") == 0


def test_a_program_that_somebody_takes_off_is_put_back(appliance: Appliance) -> None:
    way = police(appliance)
    events = appliance.events()
    next(events)
    subprocess.run(appliance.inside.namespace.command("ip", "link", "set", "nic0", "xdp", "off"), check=True)
    assert any("nic0: attached again" in event.get("what", "") for event in events)
    assert way.passed(10) == 0


def test_a_trial_outlives_kill_9_and_ends_in_time(appliance: Appliance) -> None:
    appliance.start()
    appliance.done("POST", "/v1/nics/nic0/attach", {"confirm": "3s"})
    appliance.kill()
    assert appliance.program() != 0
    appliance.start()
    events = appliance.events()
    next(events)
    assert any("not confirmed in time" in event.get("what", "") for event in events)
    assert appliance.program() == 0
    assert appliance.done("GET", "/v1/status")["nics"] == []


def test_a_confirmed_trial_stays(appliance: Appliance) -> None:
    appliance.start()
    appliance.done("POST", "/v1/nics/nic0/attach", {"confirm": "60s"})
    assert appliance.done("POST", "/v1/nics/nic0/confirm")["confirm_left_s"] is None


def test_another_table_size_is_an_upgrade_that_keeps_the_buckets_and_the_gate_shut(
    bare_appliance: Appliance,
) -> None:
    way = police(bare_appliance)
    before = bare_appliance.program()
    bare_appliance.stop()
    bare_appliance.configure(table={"buckets": 32768})
    bare_appliance.start()
    report = bare_appliance.done("GET", "/v1/status")
    assert report["program"]["how"] == "upgraded"
    assert report["table"]["buckets"] == 32768
    assert bare_appliance.program() not in (0, before)
    assert way.passed(10) == 0


def test_a_reload_takes_new_settings_and_refuses_wrong_ones(appliance: Appliance) -> None:
    appliance.start()
    assert appliance.process is not None
    assert appliance.process.stderr is not None
    appliance.configure(protect=["192.0.2.7"])
    appliance.process.send_signal(signal.SIGHUP)
    for line in appliance.process.stderr:
        if "settings reloaded" in line:
            break
    assert appliance.done("GET", "/v1/status")["protect"] == ["192.0.2.7/32"]
    appliance.configure(protect=["192.0.2.8"], nonsense=1)
    appliance.process.send_signal(signal.SIGHUP)
    for line in appliance.process.stderr:
        if "not reloaded" in line:
            assert "nonsense" in line
            break
    assert appliance.done("GET", "/v1/status")["protect"] == ["192.0.2.7/32"]


def test_somebody_elses_program_is_named_and_left(bare_appliance: Appliance) -> None:
    bare_appliance.start()
    bare_appliance.done("POST", "/v1/nics/nic0/attach", {})
    other = bare_appliance.program()
    bare_appliance.stop()
    subprocess.run(["umount", str(bare_appliance.bpffs)], check=True)
    subprocess.run(["mount", "-t", "bpf", "bpf", str(bare_appliance.bpffs)], check=True)
    bare_appliance.start()
    assert bare_appliance.program() == other
    (nic,) = bare_appliance.done("GET", "/v1/status")["nics"]
    assert f"id {other}" in nic["problem"]
    assert not nic["attached"]
    status, answer = bare_appliance.ask("POST", "/v1/nics/nic0/attach", {})
    assert (status, answer["error"]["code"]) == (409, "foreign")
    bare_appliance.done("POST", "/v1/nics/nic0/attach", {"replace": True})
    assert bare_appliance.program() not in (0, other)


@pytest.mark.parametrize(
    ("settings", "status", "said"),
    [
        ({"nonsense": 1}, 2, "unknown setting nonsense"),
        ({"state_dir": "/proc/valkyrie"}, 9, "/proc/valkyrie"),
        ({"socket": "/proc/valkyrie.sock"}, 6, "/proc/valkyrie.sock"),
    ],
)
def test_a_start_that_cannot_be_says_why_and_attaches_nothing(
    appliance: Appliance, settings: dict[str, object], status: int, said: str
) -> None:
    appliance.configure(**settings)
    process = appliance.launch()
    told = process.communicate(timeout=30)[1]
    assert process.returncode == status, told
    assert said in told
    assert "Traceback" not in told
    assert appliance.program() == 0


def test_a_read_only_bpffs_is_named(bare_appliance: Appliance) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(bare_appliance.bpffs)], check=True)
    process = bare_appliance.launch()
    told = process.communicate(timeout=30)[1]
    assert process.returncode == 6, told
    assert "read-only" in told.lower()
    assert "Traceback" not in told


def test_a_second_daemon_on_the_same_state_is_refused(appliance: Appliance) -> None:
    appliance.start()
    first = appliance.process
    second = appliance.launch()
    assert second.communicate(timeout=30)[1].startswith("valkyried: another valkyried uses the state")
    assert second.returncode == 4
    appliance.process = first
    assert appliance.done("GET", "/v1/limits") == {"limits": []}


def test_drops_are_told_to_those_who_follow_and_counted_as_talkers(appliance: Appliance) -> None:
    way = police(appliance)
    events = appliance.events()
    next(events)
    assert way.passed(5) == 0
    told = next(event for event in events if event.get("kind") == "drop")
    assert (told["src"], told["dport"], told["limit"]) == ("10.9.0.2", PORT, "slow")
    assert (told["nic"], told["protocol"], told["shadow"]) == ("nic0", "udp", False)
    (talker,) = appliance.done("GET", "/v1/top")["talkers"]
    assert (talker["key"], talker["limit"]) == ("10.9.0.2", "slow")


def test_explain_takes_no_tokens(appliance: Appliance) -> None:
    appliance.start()
    appliance.done("PUT", "/v1/limits/slow", SLOW)
    for _ in range(5):
        said = appliance.done("POST", "/v1/explain", {"packet": "src 10.9.0.2 proto udp dport 7"})
        (limit,) = said["limits"]
        assert (said["verdict"], limit["tokens_left"], limit["burst"]) == ("pass", 3, 3)


def test_a_socket_of_another_process_is_not_stolen(appliance: Appliance, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "v.sock"))
        other.listen()
        process = appliance.launch()
        told = process.communicate(timeout=30)[1]
    assert process.returncode == 4
    assert "answers at" in told
