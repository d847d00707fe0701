# SPDX-License-Identifier: Apache-2.0
"""The emulator's command line, the choice of accelerator, the first root, and the network's plan."""

import time
from itertools import pairwise
from pathlib import Path

import pytest

from harness import accel, initrd, network, qemu
from harness.errors import VmError
from harness.image import Image
from harness.qemu import Machine

MACHINE = Machine(Image(Path("/cache/x"), "bookworm"), "tcg", Path("/r/console.log"), Path("/run/x/qmp"))


def after(words: list[str], option: str) -> list[str]:
    """The values of an option that is given many times."""
    return [value for word, value in pairwise(words) if word == option]


def test_the_disk_of_the_cache_is_never_written() -> None:
    (drive,) = after(qemu.command_line(MACHINE), "-drive")
    assert "file=/cache/x/disk.raw" in drive
    assert "snapshot=on" in drive


def test_the_guest_reaches_nothing_and_no_port_of_the_host_is_used() -> None:
    user = [word for word in after(qemu.command_line(MACHINE), "-netdev") if word.startswith("user")]
    assert len(user) == 1
    assert "restrict=on" in user[0]
    assert "hostfwd=tcp:127.0.0.1:22-" in user[0]


def test_eth0_comes_first_and_data4_has_four_queues() -> None:
    devices = [word for word in after(qemu.command_line(MACHINE), "-device") if "net" in word]
    assert [word.split("netdev=")[1].split(",")[0] for word in devices] == ["eth0", "data1", "data4"]
    assert "mq=on,vectors=10" in devices[2]
    assert "mq=on" not in devices[1]
    taps = [word for word in after(qemu.command_line(MACHINE), "-netdev") if word.startswith("tap")]
    assert "queues=4" in taps[1]
    assert "queues" not in taps[0]
    assert all("script=no,downscript=no" in word for word in taps)


@pytest.mark.parametrize(("given", "cpu"), [("tcg", "max,la57=off,avx2=off"), ("kvm", "host")])
def test_the_cpu_fits_the_accelerator(given: str, cpu: str) -> None:
    words = qemu.probe_line(Machine(MACHINE.image, given, MACHINE.console, MACHINE.control))
    assert after(words, "-cpu") == [cpu]
    assert after(words, "-accel")[0].startswith(given)


@pytest.mark.parametrize(
    ("console", "gone"),
    [
        ("[ 1.0] Kernel panic - not syncing: VFS", True),
        ("[ 1.0] systemd[1]: Reached target", False),
        ("", False),
    ],
)
def test_a_kernel_that_has_given_up_is_seen_on_the_console(console: str, gone: bool) -> None:
    assert qemu.panicked(console) is gone


@pytest.mark.parametrize(
    ("kept", "found"),
    [("kvm boot-1\n", "kvm"), ("tcg boot-1", "tcg"), ("kvm boot-0", None), ("xen boot-1", None), ("", None)],
)
def test_what_was_found_of_kvm_holds_for_one_boot_of_the_host(kept: str, found: str | None) -> None:
    assert accel.remembered(kept, "boot-1") == found


def test_without_the_device_nothing_is_tried_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(accel, "DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(accel, "probe", lambda *_: pytest.fail("a guest was started"))
    assert accel.choose(MACHINE, tmp_path, tmp_path / "accel", told.append) == "tcg"
    assert told == ["no /dev/kvm here: emulating (TCG), which is several times slower"]


@pytest.mark.parametrize(
    ("script", "boots"),
    [
        (f"echo '{initrd.PROBED}' >\"$1\"; sleep 600", True),
        (f"echo '{initrd.PROBED}' >\"$1\"", True),
        ("sleep 600", False),
        ("echo 'kvm: cannot be used' >&2; exit 1", False),
    ],
    ids=["boots and stays", "boots and ends", "hangs", "is refused"],
)
def test_kvm_is_taken_only_where_a_guest_really_boots_on_it_and_that_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, boots: bool
) -> None:
    asked: list[str] = []

    def line(machine: Machine) -> list[str]:
        asked.append(machine.accel)
        return ["sh", "-c", script, "guest", str(machine.console)]

    monkeypatch.setattr(accel, "DEVICE", Path("/dev/null"))
    monkeypatch.setattr(accel, "probe_line", line)
    monkeypatch.setattr(accel, "PROBE_S", 5.0 if boots else 0.5)
    began, memory, told = time.monotonic(), tmp_path / "accel", list[str]()
    for _ in range(2):
        assert accel.choose(MACHINE, tmp_path, memory, told.append) == ("kvm" if boots else "tcg")
    assert time.monotonic() - began < 5
    assert asked == ["kvm"]
    assert ("no guest boots on it" in "".join(told)) is not boots


def test_a_machine_whose_emulator_ends_is_told_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu, "command_line", lambda _: ["sh", "-c", "echo 'no such machine' >&2; exit 3"])
    with qemu.Qemu(MACHINE, [], tmp_path / "qemu.log") as emulator:
        emulator._process.wait(10)
        with pytest.raises(VmError, match=r"QEMU has ended \(exit 3\)") as told:
            emulator.check()
    assert "no such machine" in str(told.value)
    assert str(MACHINE.console) in str(told.value)


def test_modules_are_loaded_after_what_they_need() -> None:
    listed = "k/ext4.ko: k/jbd2.ko k/mbcache.ko\nk/jbd2.ko: k/crc.ko\nk/mbcache.ko:\nk/crc.ko:\n"
    listed += "k/virtio-blk.ko.xz:\n"
    order = initrd.load_order(listed, ("virtio_blk", "ext4", "built_in"))
    assert order == ["k/virtio-blk.ko.xz", "k/crc.ko", "k/jbd2.ko", "k/mbcache.ko", "k/ext4.ko"]


def test_the_archive_is_what_the_kernel_reads() -> None:
    made = initrd.cpio({"a": (initrd.FILE, b"12345")})
    assert made.startswith(b"070701")
    assert made[6 + 6 * 8 : 6 + 7 * 8] == b"00000005"
    assert made[110:112] == b"a\0"
    assert made[112:117] == b"12345"
    assert made[120:126] == b"070701"
    assert b"TRAILER!!!" in made
    assert len(made) % 4 == 0


def test_only_namespaces_of_dead_runs_are_stale() -> None:
    names = ["vk-vm-10", "vk-vm-11", "vk-vm-x", "t4-in", "vk-vm-"]
    assert network.stale(names, [11]) == ["vk-vm-10"]


def test_both_ends_of_a_link_are_in_one_network() -> None:
    four = network.LINKS["data4"]
    assert (four.appliance4, four.client4) == ("10.77.4.1", "10.77.4.2")
    assert (four.appliance6, four.client6) == ("fd77:4::1", "fd77:4::2")
    assert (four.client_nic, four.queues) == ("tap4", 4)
    assert "tuntap add dev tap4 mode tap multi_queue\n" in network.plan()
    assert "tuntap add dev tap1 mode tap\n" in network.plan()
