#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tell of the machines that `vagrant up` made as a lab's file, so that the tests of vm/run run against them.

    vm/vagrant_lab.py FOLDER
    .venv/bin/python -m pytest tests/vm --lab FOLDER/lab.json

It gives the machines what these tests expect and Vagrant does not make: ssh as root, and IPv6 addresses
(until the next boot).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import child
from harness.errors import VmError
from harness.host import Host
from harness.network import QUEUES, Link
from harness.recipe import NETWORKS

VM = Path(__file__).resolve().parent
APPLIANCE, CLIENT = "appliance", "client"
VAGRANT_S = 120.0  # it asks the provider about each machine

# Vagrant's user is root's equal already: sudo asks it for no password.
ROOT_SSH = """
cmp -s "$HOME/.ssh/authorized_keys" /root/.ssh/authorized_keys ||
    sudo install -D -m 0600 -o root -g root "$HOME/.ssh/authorized_keys" /root/.ssh/authorized_keys
"""
NIC_HINT = (
    "The tests name the appliance's NICs as our own box does; vm/README.md tells how others get such names."
)


def ssh_words(name: str, settings: Path, *options: str) -> tuple[str, ...]:
    """How ssh is called for a machine, by the settings that Vagrant tells."""
    told = {
        "BatchMode": "yes",
        "ConnectTimeout": "10",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
    }
    words = [word for option, value in told.items() for word in ("-o", f"{option}={value}")]
    return ("ssh", "-F", str(settings), *words, *options, name)


def standing(settings: Path) -> tuple[str, ...]:
    """Options by which one connection, as root, carries all commands."""
    path = settings.parent / "ssh-%n"
    return ("-l", "root", "-o", "ControlMaster=auto", "-o", f"ControlPath={path}", "-o", "ControlPersist=600")


def host(name: str, settings: Path, *options: str) -> Host:
    """A machine as one that runs commands."""
    return Host(name, ssh_words(name, settings, *options), shell=True)  # noqa: S604 the far end's, which is quoted for


def nic_with(network: str, nics: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """Name, MAC and address of the NIC in a network of 24 bits, by what `ip -json address` prints."""
    for nic in nics:
        for address in nic.get("addr_info", ()):
            if str(address.get("local", "")).startswith(f"{network}."):
                return str(nic["ifname"]), str(nic["address"]), str(address["local"])
    raise VmError(f"no NIC has an address in {network}.0/24", hint="Run: vagrant destroy && vagrant up")


def link(name: str, appliance: Sequence[Mapping[str, Any]], client: Sequence[Mapping[str, Any]]) -> Link:
    """The wire of one network, from the NICs that are really there."""
    four, six = NETWORKS[name]
    near, near_mac, near4 = nic_with(four, appliance)
    far, far_mac, far4 = nic_with(four, client)
    if near != name:
        raise VmError(f"the appliance's NIC in {four}.0/24 is {near} and not {name}", hint=NIC_HINT)
    return Link(
        queues=QUEUES[name],
        appliance4=near4,
        client4=far4,
        appliance6=f"{six}:{near4.rpartition('.')[2]}",
        client6=f"{six}:{far4.rpartition('.')[2]}",
        client_nic=far,
        appliance_mac=near_mac,
        client_mac=far_mac,
    )


def nics(host: Host) -> list[Mapping[str, Any]]:
    """The machine's NICs and their addresses."""
    return list(json.loads(host.told("ip", "-json", "address", "show")))


def accelerator(host: Host) -> str:
    """How the machine runs: `tcg`, `kvm`, or what else systemd calls it."""
    found = host.run("systemd-detect-virt", "--vm").stdout.strip()
    return "tcg" if found == "qemu" else found


def describe(folder: Path) -> dict[str, Any]:
    """Prepare the machines, and tell of them."""
    settings = folder / "ssh_config"
    settings.write_text(
        child.run(
            ["env", f"VAGRANT_CWD={VM}", "vagrant", "ssh-config"],
            what="asking Vagrant about its machines",
            timeout=VAGRANT_S,
            hint="Run: cd vm && vagrant up",
        )
    )
    hosts = {}
    for name in (APPLIANCE, CLIENT):
        host(name, settings).told("sh", "-ec", ROOT_SSH)
        hosts[name] = host(name, settings, *standing(settings))
    appliance, client = nics(hosts[APPLIANCE]), nics(hosts[CLIENT])
    links = {name: link(name, appliance, client) for name in NETWORKS}
    for name, wire in links.items():
        address = ("ip", "-6", "address", "replace")
        hosts[APPLIANCE].told(*address, f"{wire.appliance6}/64", "dev", name, "nodad")
        hosts[CLIENT].told(*address, f"{wire.client6}/64", "dev", wire.client_nic, "nodad")
    release = hosts[APPLIANCE].told("sh", "-c", '. /etc/os-release && echo "$VERSION_CODENAME"')
    return {
        "release": release.strip(),
        "accel": accelerator(hosts[APPLIANCE]),
        "source": "/vagrant",
        "results": str(folder / "results"),
        **{name: {"ssh": list(host.prefix)} for name, host in hosts.items()},
        "links": {name: asdict(wire) for name, wire in links.items()},
        "power": None,
    }


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    arguments = argparse.ArgumentParser(
        description="Write a lab's file of the machines that `vagrant up` made."
    )
    arguments.add_argument("folder", type=Path, help="where the file, ssh's settings and the results go")
    return arguments.parse_args(argv)


def main() -> int:
    """Write the lab's file, print its path."""
    folder = parse(sys.argv[1:]).folder.resolve()
    try:
        (folder / "results").mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "lab.json").write_text(json.dumps(describe(folder), indent=2) + "\n")
    except (VmError, OSError) as error:
        sys.stderr.write(f"vagrant_lab: {error}\n")
        return 1
    sys.stdout.write(f"{folder / 'lab.json'}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
