# SPDX-License-Identifier: Apache-2.0
"""A Vagrant box has the image's disk, but for the files by which it finds its place in Vagrant's networks."""

import subprocess
from pathlib import Path

import pytest

import make_box
from harness import image, recipe
from harness.errors import VmError


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A file system with the image's files, and nothing else."""
    root = tmp_path / "root"
    for path, content in recipe.files().items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
    made = tmp_path / "disk"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(made), "4M"], check=True)
    return made


def there(disk: Path) -> list[str]:
    """The names in the folder of the network's settings."""
    return [
        word
        for word in make_box.debugfs(disk, "-R", f"ls -p {make_box.NETWORKS}").split("/")
        if "10-" in word
    ]


def test_a_boxs_nics_have_their_names_and_the_addresses_are_others_to_give(
    disk: Path, tmp_path: Path
) -> None:
    assert {"10-data1.network", "10-data4.network"} <= set(there(disk))
    make_box.change_disk(disk, tmp_path)
    assert sorted(there(disk)) == ["10-data1.link", "10-data4.link", "10-eth0.network"]
    assert "DHCP=ipv4" in make_box.debugfs(disk, "-R", f"cat {make_box.NETWORKS}/10-eth0.network")


def test_a_box_knows_the_names_of_both_machines(disk: Path, tmp_path: Path) -> None:
    make_box.change_disk(disk, tmp_path)
    assert make_box.debugfs(disk, "-R", "cat /etc/hosts").startswith("127.0.0.1 localhost appliance client\n")
    told = make_box.debugfs(disk, "-R", "stat /etc/hosts")
    assert "Mode:  0644" in told


def test_what_debugfs_does_not_do_is_noticed(disk: Path, tmp_path: Path) -> None:
    make_box.debugfs(disk, "-w", "-R", "rm /etc/hosts")
    make_box.debugfs(disk, "-w", "-R", "mkdir /etc/hosts")
    with pytest.raises(VmError, match=r"not as meant\n.*: /etc/hosts\."):
        make_box.change_disk(disk, tmp_path)


def test_another_way_to_make_a_box_is_another_box_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = image.Image(tmp_path / "bookworm-0123", "bookworm")
    before = make_box.name(source)
    other = tmp_path / "other.py"
    other.write_text("another way")
    monkeypatch.setattr(make_box, "__file__", str(other))
    assert before.startswith("valkyrie-bookworm-0123-")
    assert make_box.name(source) != before
