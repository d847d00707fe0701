# SPDX-License-Identifier: Apache-2.0
"""The emulator: its command line (pure), its process, and its control socket."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import child
from harness.errors import VmError
from harness.image import Image
from harness.network import LINKS, Link
from harness.recipe import NICS

BINARY = "qemu-system-x86_64"
CPUS = 4  # as many as data4 has queues: the driver uses no more queues than there are CPUs
MEMORY_MIB = 1024
# QEMU 7.2 emulates AVX2's gathers wrongly, so that numpy's sort crashes.
EMULATED_CPU = "max,la57=off,avx2=off"
CONTROL_S = 10.0
KERNEL_WORDS = "console=ttyS0 net.ifnames=0 loglevel=5 panic=0 mitigations=off nowatchdog"
PANIC = re.compile(r"Kernel panic|valkyrie: the disk cannot be mounted|Unable to mount root")


@dataclass(frozen=True)
class Machine:
    """What a machine is made of; `links` empty is one without data NICs."""

    image: Image
    accel: str
    console: Path
    control: Path
    cpus: int = CPUS
    memory_mib: int = MEMORY_MIB
    kernel_words: str = KERNEL_WORDS


def accelerator(accel: str) -> str:
    """QEMU's words for it: TCG with a thread for each CPU, and room for all that BCC's compiler is."""
    return "tcg,thread=multi,tb-size=512" if accel == "tcg" else accel


def nic(name: str, wire: Link) -> list[str]:
    """A virtio NIC on a tap of the namespace; a vector for each queue's both ways and two to spare."""
    queues = f",queues={wire.queues}" if wire.queues > 1 else ""
    many = f",mq=on,vectors={2 * wire.queues + 2}" if wire.queues > 1 else ""
    return [
        *("-netdev", f"tap,id={name},ifname={wire.client_nic},script=no,downscript=no{queues}"),
        *("-device", f"virtio-net-pci,netdev={name},mac={wire.appliance_mac},romfile={many}"),
    ]


def probe_line(machine: Machine) -> list[str]:
    """How QEMU is called for a guest of kernel and initrd alone."""
    image = machine.image
    return [
        *(BINARY, "-name", "valkyrie", "-no-user-config", "-nodefaults", "-display", "none"),
        *("-machine", "q35", "-accel", accelerator(machine.accel)),
        *("-cpu", EMULATED_CPU if machine.accel == "tcg" else "host"),
        *("-smp", str(machine.cpus), "-m", str(machine.memory_mib)),
        *("-serial", f"file:{machine.console}"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", machine.kernel_words),
    ]


def command_line(machine: Machine) -> list[str]:
    """How QEMU is called. What the guest writes goes to a nameless file that ends with the process."""
    return [
        *probe_line(machine),
        *("-qmp", f"unix:{machine.control},server=on,wait=off"),
        *("-drive", f"if=none,id=disk,format=raw,file={machine.image.disk},snapshot=on,cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci"),
        # The first NIC, so that it is eth0; reached by ssh from the namespace, and reaches nothing.
        *("-netdev", "user,id=eth0,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:22-10.0.2.15:22"),
        *("-device", f"virtio-net-pci,netdev=eth0,mac={NICS['eth0']},romfile="),
        *(word for name, wire in LINKS.items() for word in nic(name, wire)),
    ]


def panicked(console: str) -> bool:
    """Whether the guest's kernel has given up."""
    return PANIC.search(console) is not None


class Qemu:
    """A running emulator; a context manager whose end is that of a machine without power."""

    def __init__(self, machine: Machine, inside: Sequence[str], log: Path) -> None:
        self.machine = machine
        self.log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [*child.WITH_PARENT, *inside, *command_line(machine)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C is for the harness, which ends it in order
            )

    def check(self) -> None:
        """Complain if it has ended, or its guest's kernel has."""
        status = self._process.poll()
        if status is not None:
            raise VmError(
                f"QEMU has ended (exit {status})",
                child.tail(child.read_tail(self.log)) or child.tail(child.read_tail(self.machine.console)),
                f"The console's log is {self.machine.console}",
            )
        if panicked(child.read_tail(self.machine.console)):
            raise VmError(
                "the guest's kernel has given up",
                child.tail(child.read_tail(self.machine.console)),
                f"The console's log is {self.machine.console}",
            )

    def __enter__(self) -> Qemu:
        return self

    def __exit__(self, *_: object) -> None:
        child.end(self._process, 5.0, signal.SIGTERM)


def control(path: Path, command: str) -> None:
    """One command to QEMU's control socket, such as system_reset (the reset button)."""
    try:
        with socket.socket(socket.AF_UNIX) as wire:
            wire.settimeout(CONTROL_S)
            wire.connect(str(path))
            with wire.makefile("rw") as file:
                file.readline()  # its greeting
                for word in ("qmp_capabilities", command):
                    file.write(json.dumps({"execute": word}) + "\n")
                    file.flush()
                    answer = json.loads(file.readline())
                    while "event" in answer:
                        answer = json.loads(file.readline())
                    if "error" in answer:
                        raise VmError(f"QEMU refuses '{word}'", str(answer["error"]))
    except (OSError, ValueError) as error:
        raise VmError(f"QEMU's control socket {path} does not answer", str(error)) from error
