# SPDX-License-Identifier: Apache-2.0
"""vm/Vagrantfile as Vagrant itself reads it, and as it must fit the machines of vm/run."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.network import QUEUES
from harness.recipe import NETWORKS, NICS

VM = Path(__file__).resolve().parents[2] / "vm"
VAGRANTFILE = (VM / "Vagrantfile").read_text()

needs_vagrant = pytest.mark.skipif(
    shutil.which("vagrant") is None, reason="no vagrant here: Debian 13 and Ubuntu 24.04 do not package it"
)


def validate(
    place: Path, *words: str, provider: str = "libvirt", **settings: str
) -> subprocess.CompletedProcess[str]:
    """`vagrant validate`, which keeps what it keeps in `place`."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "LC_ALL": "C.UTF-8",
        "VAGRANT_HOME": str(place / "home"),
        "VAGRANT_DOTFILE_PATH": str(place / "machines"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_DEFAULT_PROVIDER": provider,
        **settings,
    }
    return subprocess.run(
        ["vagrant", "validate", *words],
        cwd=VM,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@needs_vagrant
@pytest.mark.parametrize("accel", ["kvm", "tcg"])
@pytest.mark.parametrize("box", ["", "debian/trixie64", "ours"])
def test_vagrant_accepts_it_for_libvirt_with_each_kind_of_box(tmp_path: Path, box: str, accel: str) -> None:
    settings = {"VALKYRIE_ACCEL": accel}
    if box == "ours":
        (tmp_path / "valkyrie-x.box").touch()
        settings["VALKYRIE_BOX"] = str(tmp_path / "valkyrie-x.box")
    elif box:
        settings["VALKYRIE_BOX"] = box
    done = validate(tmp_path, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "successfully" in done.stdout
    assert "static IP" not in done.stdout + done.stderr, "it warns of nothing"


@needs_vagrant
def test_vagrant_accepts_it_whatever_the_provider(tmp_path: Path) -> None:
    done = validate(tmp_path, "--ignore-provider")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_vagrant
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("VALKYRIE_ACCEL", "fast", "kvm or tcg"), ("VALKYRIE_BOX", "/none/such.box", "there is no file")],
)
def test_a_wrong_setting_is_told_in_one_line(tmp_path: Path, name: str, value: str, told: str) -> None:
    done = validate(tmp_path, **{name: value})
    assert done.returncode != 0
    assert name in done.stderr
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_networks_macs_and_queues_are_those_of_the_image() -> None:
    found = re.findall(r'"(data\d)" => \[(\d), "([\d.]+)", "([0-9a-f]{12})"\]', VAGRANTFILE)
    assert {name: (int(queues), four, mac) for name, queues, four, mac in found} == {
        name: (QUEUES[name], NETWORKS[name][0], NICS[name].replace(":", "")) for name in NETWORKS
    }


def test_the_appliance_is_provisioned_by_install_alone() -> None:
    part = VAGRANTFILE.partition('config.vm.define "appliance"')[2].partition("config.vm.define")[0]
    provisioned = [line for line in part.splitlines() if "provision" in line]
    assert len(provisioned) == 1
    assert 'inline: "cd /vagrant && sudo ./appliance install"' in provisioned[0]
    assert "config.vm.provision" not in VAGRANTFILE
