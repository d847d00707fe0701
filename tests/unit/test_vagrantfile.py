# SPDX-License-Identifier: Apache-2.0
"""vm/Vagrantfile as Vagrant itself reads it, and as it must fit the machines of vm/run."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.network import QUEUES
from harness.qemu import CPUS
from harness.recipe import NETWORKS, NICS

VM = Path(__file__).resolve().parents[2] / "vm"
VAGRANTFILE = (VM / "Vagrantfile").read_text()


def call(place: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command of Vagrant's, which keeps what it keeps in `place`."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "LC_ALL": "C.UTF-8",
        "VAGRANT_HOME": str(place / "home"),
        "VAGRANT_DOTFILE_PATH": str(place / "machines"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
        **settings,
    }
    return subprocess.run(
        ["vagrant", *words],
        cwd=VM,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def vagrant(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Vagrant with the plugin without which it knows no libvirt."""
    if shutil.which("vagrant") is None:
        pytest.skip("no vagrant here: apt does not know it")
    told = call(tmp_path_factory.mktemp("vagrant"), "plugin", "list").stdout
    if "vagrant-libvirt" not in told:
        pytest.skip("this vagrant has no plugin vagrant-libvirt")


@pytest.mark.usefixtures("vagrant")
@pytest.mark.parametrize(
    ("box", "accel"), [("", "kvm"), ("debian/trixie64", "tcg"), ("ours", "kvm"), ("ours", "tcg")]
)
def test_vagrant_accepts_it_for_libvirt_with_each_kind_of_box(tmp_path: Path, box: str, accel: str) -> None:
    settings = {"VALKYRIE_ACCEL": accel}
    if box == "ours":
        for suffix in ("box", "vmlinuz", "initrd"):
            (tmp_path / f"valkyrie-x.{suffix}").touch()
        settings["VALKYRIE_BOX"] = str(tmp_path / "valkyrie-x.box")
    elif box:
        settings["VALKYRIE_BOX"] = box
    done = call(tmp_path, "validate", **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "successfully" in done.stdout
    assert "static IP" not in done.stdout + done.stderr, "it warns of nothing"


@pytest.mark.usefixtures("vagrant")
def test_vagrant_accepts_it_whatever_the_provider(tmp_path: Path) -> None:
    done = call(tmp_path, "validate", "--ignore-provider")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("vagrant")
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("VALKYRIE_ACCEL", "fast", "kvm or tcg"), ("VALKYRIE_BOX", "/none/such.box", "there is no file")],
)
def test_a_wrong_setting_is_told_in_one_line(tmp_path: Path, name: str, value: str, told: str) -> None:
    done = call(tmp_path, "validate", **{name: value})
    assert done.returncode != 0
    assert name in done.stderr
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.usefixtures("vagrant")
def test_our_box_without_its_kernel_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.box").touch()
    done = call(tmp_path, "validate", VALKYRIE_BOX=str(tmp_path / "x.box"))
    assert done.returncode != 0
    assert done.stderr.strip() == f"VALKYRIE_BOX: there is no file {tmp_path / 'x.vmlinuz'}."


def test_the_appliance_has_a_cpu_for_each_queue() -> None:
    found = re.search(r'"appliance" => \[(\d+),', VAGRANTFILE)
    assert found is not None
    assert int(found[1]) == CPUS == max(QUEUES.values())


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
