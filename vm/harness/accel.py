# SPDX-License-Identifier: Apache-2.0
"""Whether KVM is of use: only where a guest has really booted on it. A device that opens proves nothing."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness import child
from harness.initrd import PROBE_WORD, PROBED
from harness.qemu import KERNEL_WORDS, Machine, probe_line

DEVICE = Path("/dev/kvm")
PROBE_S = 20.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def remembered(answer: str, boot: str) -> str | None:
    """What was found in this boot of the host, if it was."""
    found, _, when = answer.strip().partition(" ")
    return found if when == boot and found in {"kvm", "tcg"} else None


def probe(machine: Machine, folder: Path) -> bool:
    """Whether the image's kernel gets to its first program on KVM, within PROBE_S."""
    console = folder / "probe.log"
    trial = replace(machine, accel="kvm", console=console, kernel_words=f"{KERNEL_WORDS} {PROBE_WORD}")
    process = subprocess.Popen(
        [*child.WITH_PARENT, *probe_line(trial)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + PROBE_S
    try:
        while time.monotonic() < deadline:
            if PROBED in child.read_tail(console):
                return True
            if process.poll() is not None:
                return PROBED in child.read_tail(console)
            time.sleep(0.1)
    finally:
        child.end(process, 2.0)
    return False


def choose(machine: Machine, folder: Path, memory: Path, say: Callable[[str], None]) -> str:
    """`kvm` or `tcg`; the answer is kept in the file `memory` for as long as the host runs."""
    if not DEVICE.exists():
        say("no /dev/kvm here: emulating (TCG), which is several times slower")
        return "tcg"
    boot = BOOT_ID.read_text().strip()
    found = remembered(memory.read_text(), boot) if memory.exists() else None
    if found is None:
        found = "kvm" if probe(machine, folder) else "tcg"
        memory.write_text(f"{found} {boot}\n")
    if found == "tcg":
        say("/dev/kvm is there but no guest boots on it: emulating (TCG), which is several times slower")
    return found
