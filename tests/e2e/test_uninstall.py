# SPDX-License-Identifier: Apache-2.0
"""Uninstalling takes the program off wherever the settings let it be pinned, after whatever was cut short."""

from __future__ import annotations

import os
import subprocess
import sys

from support.appliance import Appliance


def policed(appliance: Appliance) -> None:
    appliance.start()
    appliance.done("POST", "/v1/nics/nic0/attach", {})
    assert appliance.stop() == 0
    assert appliance.program()


def uninstalled(appliance: Appliance) -> subprocess.CompletedProcess[str]:
    """What `./appliance uninstall` runs once the service has ended."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "VALKYRIE_CONFIG": str(appliance.config),
    }
    command = appliance.inside.namespace.command(sys.executable, "-m", "valkyrie.control.host.detach")
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_pins_are_looked_for_where_the_settings_say(bare_appliance: Appliance) -> None:
    policed(bare_appliance)
    done = uninstalled(bare_appliance)
    assert (done.returncode, done.stdout) == (0, "nic0: detached, its packets pass unpoliced\n"), done.stderr
    assert bare_appliance.program() == 0
    assert not (bare_appliance.bpffs / "valkyrie").exists()


def test_what_a_migration_that_was_cut_short_left_goes_too(bare_appliance: Appliance) -> None:
    policed(bare_appliance)
    pins = bare_appliance.bpffs / "valkyrie"
    (bare_appliance.bpffs / "valkyrie_next").mkdir()
    pins.rename(bare_appliance.bpffs / "valkyrie_old")  # the first of its two renames
    assert uninstalled(bare_appliance).returncode == 0
    assert bare_appliance.program() == 0
    assert not [path.name for path in bare_appliance.bpffs.iterdir() if path.name.startswith("valkyrie")]
