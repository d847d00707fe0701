# SPDX-License-Identifier: Apache-2.0
"""vm/box/name-nics: NICs of a public box get the names that tests know, and keep their addresses."""

import subprocess
from pathlib import Path

import pytest

from harness.recipe import NICS, files
from support.ctl import ROOT

INTERFACES = """\
auto lo
iface lo inet loopback
allow-hotplug eth0
iface eth0 inet dhcp
#VAGRANT-BEGIN
auto eth1
iface eth1 inet static
      address 10.77.1.10
#VAGRANT-END
auto eth2
iface eth2 inet static
      address 10.77.4.10
iface eth20 inet manual
"""


@pytest.fixture
def nics(tmp_path: Path) -> Path:
    """What /sys/class/net tells of a public box's NICs."""
    macs = {"eth0": "08:00:27:00:00:01", "eth1": NICS["data1"], "eth2": NICS["data4"]}
    for name, mac in macs.items():
        place = tmp_path / "net" / name
        place.mkdir(parents=True)
        (place / "address").write_text(f"{mac}\n")
    return tmp_path / "net"


def call(etc: Path, nics: Path) -> subprocess.CompletedProcess[str]:
    argv = [str(ROOT / "vm/box/name-nics"), str(etc), str(nics)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_nics_get_the_links_of_our_image_and_keep_their_addresses(tmp_path: Path, nics: Path) -> None:
    etc = tmp_path / "etc"
    (etc / "network").mkdir(parents=True)
    (etc / "network/interfaces").write_text(INTERFACES)
    assert call(etc, nics).returncode == 0
    for name in ("data1", "data4"):
        path = f"systemd/network/10-{name}.link"
        assert (etc / path).read_text() == files()[f"/etc/{path}"]
    wanted = INTERFACES.replace("eth1 ", "data1 ").replace("auto eth1", "auto data1")
    wanted = wanted.replace("eth2 ", "data4 ").replace("auto eth2", "auto data4")
    assert (etc / "network/interfaces").read_text() == wanted


def test_on_another_machine_nothing_is_named(tmp_path: Path, nics: Path) -> None:
    (nics / "eth1/address").write_text("08:00:27:00:00:02\n")
    done = call(tmp_path / "etc", nics)
    assert done.returncode == 1
    assert done.stderr.startswith(f"name-nics: no NIC has the address {NICS['data1']}.")
    assert list((tmp_path / "etc").rglob("*.link")) == []
