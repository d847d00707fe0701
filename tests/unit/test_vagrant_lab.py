# SPDX-License-Identifier: Apache-2.0
"""Vagrant's machines as a lab: their NICs are found by their networks, and what is missing is said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import vagrant_lab
from harness import lab
from harness.errors import VmError
from harness.network import LINKS
from harness.recipe import NICS


def nic(name: str, mac: str, *addresses: str) -> Mapping[str, Any]:
    """An entry of `ip -json address`."""
    return {"ifname": name, "address": mac, "addr_info": [{"local": address} for address in addresses]}


MANAGEMENT = nic("eth0", "52:54:00:00:00:01", "192.168.121.7")
APPLIANCE = [
    nic("lo", "00:00:00:00:00:00", "127.0.0.1"),
    MANAGEMENT,
    nic("data1", NICS["data1"], "10.77.1.10", "fe80::1"),
    nic("data4", NICS["data4"], "10.77.4.10"),
]
CLIENT = [
    MANAGEMENT,
    nic("eth1", "52:54:00:00:00:02", "10.77.1.20"),
    nic("eth2", "52:54:00:00:00:03", "10.77.4.20"),
]


def test_a_wire_is_what_the_machines_say_of_it() -> None:
    wire = vagrant_lab.link("data4", APPLIANCE, CLIENT)
    assert (wire.appliance4, wire.client4, wire.client_nic) == ("10.77.4.10", "10.77.4.20", "eth2")
    assert (wire.appliance6, wire.client6) == ("fd77:4::10", "fd77:4::20")
    assert (wire.appliance_mac, wire.client_mac) == (NICS["data4"], "52:54:00:00:00:03")
    assert wire.queues == LINKS["data4"].queues


def test_a_network_whose_number_begins_alike_is_another() -> None:
    with pytest.raises(VmError, match=r"no NIC has an address in 10\.77\.1\.0/24"):
        vagrant_lab.nic_with("10.77.1", [nic("eth1", "", "10.77.10.10"), MANAGEMENT])


def test_a_nic_of_another_name_is_said_with_where_to_read_on() -> None:
    with pytest.raises(VmError, match=r"is eth1 and not data1\n.*vm/README\.md"):
        vagrant_lab.link("data1", [nic("eth1", NICS["data1"], "10.77.1.10")], CLIENT)


def test_commands_go_by_vagrants_settings_and_one_connection(tmp_path: Path) -> None:
    host = vagrant_lab.host("client", tmp_path / "ssh_config", *vagrant_lab.standing(tmp_path / "ssh_config"))
    assert host.argv(["echo", "a b"])[-2:] == ["client", "echo 'a b'"]
    assert host.prefix[:3] == ("ssh", "-F", str(tmp_path / "ssh_config"))
    assert {"BatchMode=yes", "ControlMaster=auto", f"ControlPath={tmp_path}/ssh-%n"} <= set(host.prefix)
    assert host.prefix[host.prefix.index("-l") + 1] == "root"


def test_what_is_written_is_a_lab(tmp_path: Path) -> None:
    told = {
        "release": "trixie",
        "accel": "kvm",
        "source": "/vagrant",
        "results": str(tmp_path),
        "power": None,
        "links": {name: vars(vagrant_lab.link(name, APPLIANCE, CLIENT)) for name in LINKS},
        **{
            name: {"ssh": list(vagrant_lab.ssh_words(name, tmp_path / "x"))}
            for name in ("appliance", "client")
        },
    }
    (tmp_path / "lab.json").write_text(json.dumps(told))
    found = lab.read(tmp_path / "lab.json")
    assert found.control is None
    assert found.links["data1"].client_nic == "eth1"
    assert found.client.argv(["true"])[-2:] == ["client", "true"]
