# SPDX-License-Identifier: Apache-2.0
"""`./appliance install` and `uninstall` in a clean root, in the order a person would go through them."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.booted import Booted
from support.cleanroot import CHECKOUT, CleanRoot
from support.nobody import AS_NOBODY

FILES = (
    "etc/systemd/system/valkyried.service",
    "etc/valkyrie/valkyrie.yaml",
    "usr/local/share/bash-completion/completions/valkyrie-ctl",
    "usr/local/share/zsh/site-functions/_valkyrie-ctl",
    "usr/local/share/man/man1/valkyrie-ctl.1",
)
ENABLED = "etc/systemd/system/multi-user.target.wants/valkyried.service"

# A NIC, the installed daemon, the installed command line; then the daemon dies.
ENFORCE = """
set -e
ip link add eth0 type veth peer wire
ip link set eth0 up
ip link set wire up
/opt/valkyrie/current/bin/valkyried & daemon=$!
for _ in $(seq 60); do valkyrie-ctl status >/dev/null 2>&1 && break; sleep 0.5; done
valkyrie-ctl attach eth0
valkyrie-ctl limits set web --match 'proto tcp dport 80' --key src --rate 1000/s
valkyrie-ctl limits list
kill -9 $daemon
ip -d link show eth0
"""
UNINSTALL = """
./appliance uninstall
ip -d link show eth0
ls /sys/fs/bpf
"""


@pytest.fixture(scope="module")
def root() -> Iterator[CleanRoot]:
    place = Path(tempfile.mkdtemp(prefix="valkyrie-root-"))
    try:
        yield CleanRoot(place / "root")
    finally:
        shutil.rmtree(place)


def named_after_valkyrie(root: CleanRoot) -> list[str]:
    """Paths outside the checkout; what pip or apt keep for themselves is not named so."""
    found = subprocess.run(
        [
            "find",
            str(root.path),
            "-path",
            f"{root.path}/src",
            "-prune",
            "-o",
            "-iname",
            "*valkyri*",
            "-print",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.removeprefix(f"{root.path}/") for line in found.stdout.splitlines()]


def test_without_network_it_says_so_and_installs_nothing(root: CleanRoot) -> None:
    done = root.run("./appliance install", network=False)
    assert done.returncode == 1
    assert "apt could not install" in done.stderr
    assert "without network" in done.stderr
    assert named_after_valkyrie(root) == []


def test_it_installs_all_that_it_needs(root: CleanRoot) -> None:
    done = root.run("./appliance install")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "systemd does not run here" in done.stdout
    for file in FILES:
        assert (root.path / file).stat().st_size > 0, file
    assert (root.path / ENABLED).readlink() == Path("/etc/systemd/system/valkyried.service")
    groups = (root.path / "etc/group").read_text()
    assert re.search(r"^valkyrie:", groups, re.MULTILINE)
    assert re.search(r"^valkyrie-read:", groups, re.MULTILINE)
    assert re.match(r"valkyrie-ctl \d", root.run("cd / && valkyrie-ctl --version").stdout)


def test_a_second_run_installs_nothing_and_keeps_the_settings(root: CleanRoot) -> None:
    settings = root.path / "etc/valkyrie/valkyrie.yaml"
    settings.write_text("log: debug\n")
    done = root.run("./appliance install", network=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "installing" not in done.stdout
    assert settings.read_text() == "log: debug\n"


def test_what_is_installed_enforces_and_uninstalling_takes_it_off_the_nic(root: CleanRoot) -> None:
    done = root.run(ENFORCE + UNINSTALL, network=False)
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = done.stdout.split("eth0: detached", 1)
    assert re.search(r"eth0@.* xdp ", before), "the program polices on without its daemon"
    assert re.search(r"\bweb\b.*1000/s", before)
    assert not re.search(r"eth0@.* xdp ", after)
    assert "valkyrie" not in after.splitlines()[-1]


def test_systemd_keeps_it_running_and_a_boot_attaches_before_the_network(root: CleanRoot) -> None:
    done = root.run("apt-get -qq -y install --no-install-recommends systemd-sysv dbus && ./appliance install")
    assert done.returncode == 0, done.stdout + done.stderr
    with Booted(root.path) as machine:
        machine.told("ip", "link", "set", "eth0", "up")
        machine.told("valkyrie-ctl", "attach", "eth0")
        machine.told("systemctl", "reload", "valkyried")
        first = machine.told("systemctl", "show", "-P", "MainPID", "valkyried")
        machine.told("systemctl", "kill", "-s", "KILL", "valkyried")
        machine.told(
            "sh", "-c", "for _ in $(seq 100); do valkyrie-ctl status && exit; sleep 0.1; done; exit 1"
        )
        assert machine.told("systemctl", "show", "-P", "MainPID", "valkyried") != first
        assert "adopted" in machine.told("journalctl", "-u", "valkyried", "-o", "cat")
    with Booted(root.path) as machine:
        assert re.search(r"eth0 +attached", machine.told("valkyrie-ctl", "status"))
        assert re.search(r"eth0@.* xdp ", machine.told("ip", "-d", "link", "show", "eth0"))
        ready, network = (
            int(machine.told("systemctl", "show", "-P", "ActiveEnterTimestampMonotonic", unit))
            for unit in ("valkyried.service", "network-pre.target")
        )
        assert 0 < ready <= network
        done = machine.run("sh", "-c", "cd /src && ./appliance uninstall")
        assert done.returncode == 0, done.stdout + done.stderr
        assert not re.search(r"eth0@.* xdp ", machine.told("ip", "-d", "link", "show", "eth0"))
        assert machine.run("systemctl", "is-enabled", "valkyried").returncode != 0


def test_after_uninstalling_state_and_settings_stay_until_purged(root: CleanRoot) -> None:
    left = named_after_valkyrie(root)
    assert {path.split("/valkyrie")[0] for path in left} == {"etc", "var/lib"}
    assert "var/lib/valkyrie" in left
    done = root.run("./appliance uninstall --purge", network=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert named_after_valkyrie(root) == []
    assert "valkyrie" not in (root.path / "etc/group").read_text()


def test_installing_needs_root() -> None:
    done = subprocess.run(
        [*AS_NOBODY, str(CHECKOUT / "appliance"), "install"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "'install' needs root" in done.stderr
    assert "sudo ./appliance install" in done.stderr


def test_without_apt_it_says_where_it_runs(tmp_path: Path) -> None:
    for tool in ("bash", "dirname", "readlink", "id"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    done = subprocess.run(
        [str(tmp_path / "bash"), str(CHECKOUT / "appliance"), "setup"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no apt" in done.stderr
    assert "Debian 12" in done.stderr


@pytest.mark.parametrize("arguments", [["instal"], ["uninstall", "--all"], ["install", "now"]])
def test_a_wrong_word_is_named(arguments: list[str]) -> None:
    done = subprocess.run(
        [str(CHECKOUT / "appliance"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert arguments[-1] in done.stderr
