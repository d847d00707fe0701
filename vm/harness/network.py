# SPDX-License-Identifier: Apache-2.0
"""One network namespace a run: the emulator and the client live in it, no port or NIC of the host is used."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import child
from harness.lock import alone
from harness.recipe import NETWORKS, NICS

PREFIX = "vk-vm-"
NAMESPACES = Path("/run/netns")
RUNS = Path("/run/valkyrie-vm")  # a folder for each running harness, named by its process id
QUEUES = {"data1": 1, "data4": 4}


@dataclass(frozen=True)
class Link:
    """A wire between the appliance's NIC and the client's."""

    queues: int
    appliance4: str
    client4: str
    appliance6: str
    client6: str
    client_nic: str
    appliance_mac: str
    client_mac: str


def link(nic: str) -> Link:
    """The plan for one data NIC."""
    four, six = NETWORKS[nic]
    queues = QUEUES[nic]
    return Link(
        queues=queues,
        appliance4=f"{four}.1",
        client4=f"{four}.2",
        appliance6=f"{six}:1",
        client6=f"{six}:2",
        client_nic=f"tap{queues}",
        appliance_mac=NICS[nic],
        client_mac=f"02:76:6b:00:00:{queues:02x}",
    )


LINKS = {nic: link(nic) for nic in NETWORKS}


def plan(links: Iterable[Link] = tuple(LINKS.values())) -> str:
    """The client's side, as a batch for `ip` inside the namespace."""
    lines = ["link set lo up"]
    for wire in links:
        nic = wire.client_nic
        many = " multi_queue" if wire.queues > 1 else ""
        lines += [
            f"tuntap add dev {nic} mode tap{many}",
            f"link set {nic} address {wire.client_mac}",
            f"link set {nic} up",
            f"address add {wire.client4}/24 dev {nic}",
            f"address add {wire.client6}/64 dev {nic} nodad",
        ]
    return "\n".join(lines) + "\n"


def stale(names: Iterable[str], alive: Iterable[int]) -> list[str]:
    """Namespaces of ours whose process is gone."""
    living = set(alive)
    found = [name for name in names if name.startswith(PREFIX) and name.removeprefix(PREFIX).isdigit()]
    return [name for name in found if int(name.removeprefix(PREFIX)) not in living]


def lives(folder: Path) -> bool:
    """Whether the run that the folder belongs to still holds it."""
    try:
        with (folder / "alive").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def remove_stale(runs: Path) -> list[str]:
    """Remove what killed runs left; says which. Every namespace has its folder."""
    folders = [entry.name for entry in runs.iterdir() if entry.is_dir()]
    living = [int(name) for name in folders if name.isdigit() and lives(runs / name)]
    gone = stale([PREFIX + name for name in folders], living)
    for name in gone:
        if (NAMESPACES / name).exists():
            child.run(["ip", "netns", "delete", name], what=f"removing the namespace {name}", timeout=30)
        shutil.rmtree(runs / name.removeprefix(PREFIX), ignore_errors=True)
    return gone


@contextmanager
def run_folder(say: Callable[[str], None], runs: Path = RUNS) -> Iterator[Path]:
    """The run's own folder, for sockets and keys; held until it ends, however it ends."""
    with alone(runs):
        for name in remove_stale(runs):
            say(f"removed what a killed run left: {name}")
        mine = runs / str(os.getpid())
        mine.mkdir(mode=0o700)
        held = (mine / "alive").open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)
        held.close()


class Namespace:
    """The run's namespace, with the client's NICs; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.name = f"{PREFIX}{folder.name}"
        self._folder = folder

    def argv(self) -> list[str]:
        """The prefix by which a command runs inside."""
        return ["ip", "netns", "exec", self.name]

    def __enter__(self) -> Namespace:
        child.run(["ip", "netns", "add", self.name], what="making a network namespace", timeout=30)
        try:
            batch = self._folder / "client.ip"
            batch.write_text(plan())
            child.run(
                ["ip", "-netns", self.name, "-batch", str(batch)],
                what="making the client's NICs",
                timeout=30,
                hint="Is the module `tun` there? (modprobe tun)",
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        child.run(["ip", "netns", "delete", self.name], what="removing the namespace", timeout=30)


def told() -> dict[str, dict[str, object]]:
    """The links as the lab's file has them."""
    return json.loads(json.dumps({nic: asdict(wire) for nic, wire in LINKS.items()}))  # type: ignore[no-any-return]
