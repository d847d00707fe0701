# SPDX-License-Identifier: Apache-2.0
"""Which lines of the daemon the tests on a machine run: coverage.py, in every process of its unit.

A process writes what it ran when it ends in order. Of one that a test kills, or that a power cut ends,
nothing is known, so the figures are lower bounds.
"""

from __future__ import annotations

from pathlib import Path

from harness.lab import Lab

PYTHON = "/opt/valkyrie/current/bin/python"
PLACE = "/opt/coverage"
RULES = f"{PLACE}/rules"
DATA = "/var/lib/valkyrie/coverage"  # where the hardened unit may write
INSTALL_S, REPORT_S, RESTART_S = 300.0, 300.0, 300.0

RULES_TEXT = f"""\
[run]
branch = true
parallel = true
data_file = {DATA}/data
include = */site-packages/valkyrie/*
[paths]
installed =
    /opt/valkyrie/current/lib/python3/site-packages/valkyrie
    /opt/valkyrie/*/lib/python*/site-packages/valkyrie
"""
# In the distribution's folder: an upgrade has an environment of its own, and sees it as well.
BEGIN = f"""
set -e
[ -d {PLACE}/coverage ] || {PYTHON} -m pip install --quiet --target {PLACE} coverage
cat >{RULES}
for folder in /usr/local/lib/python3.*/dist-packages; do
    printf '%s\\nimport coverage; coverage.process_startup()\\n' {PLACE} >"$folder/covered.pth"
done
mkdir -p /etc/systemd/system/valkyried.service.d
printf '[Service]\\nEnvironment=COVERAGE_PROCESS_START={RULES}\\nStateDirectory=valkyrie/coverage\\n' \\
    >/etc/systemd/system/valkyried.service.d/covered.conf
systemctl daemon-reload
systemctl restart valkyried
"""
END = f"""
set -e
systemctl stop valkyried
cd {DATA}
{PYTHON} -m coverage combine --quiet --rcfile={RULES}
{PYTHON} -m coverage json --quiet --rcfile={RULES} --ignore-errors -o {DATA}/coverage.json
{PYTHON} -m coverage report --rcfile={RULES} --ignore-errors
"""


def begin(lab: Lab) -> None:
    """Have the installed daemon measured from now on; it is restarted. Raises VmError."""
    lab.appliance.told("sh", "-c", BEGIN, input=RULES_TEXT, timeout=INSTALL_S + RESTART_S)


def collect(lab: Lab, folder: Path) -> None:
    """Stop the daemon and keep `coverage.txt` and `coverage.json` of it. Raises VmError."""
    (folder / "coverage.txt").write_text(lab.appliance.told("sh", "-c", END, timeout=REPORT_S))
    lab.appliance.get(f"{DATA}/coverage.json", folder / "coverage.json")
