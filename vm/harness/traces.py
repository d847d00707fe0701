# SPDX-License-Identifier: Apache-2.0
"""What a machine consists of, line by line, so that before and after can be compared."""

from __future__ import annotations

from harness.host import Host

BEFORE = "pristine.txt"  # in the results: what there was before the installation
LOOK_S = 180.0

# Not: what is made anew by each boot, what anything that runs writes to (logs, caches, temporary files), and
# the copies that groupadd and groupdel keep of the files they change.
LOOK = r"""
set -e
export LC_ALL=C
find / -xdev \( -path /tmp -o -path /var/tmp -o -path /var/log -o -path /var/lib/systemd \) -prune \
    -o -path "$1" -prune -o -path '/etc/*-' -prune -o -printf 'path %y %m %u %g %p %l\n'
find /etc /usr/local -xdev -type f ! -name '*-' -exec sha256sum {} + | sed 's/^/content /'
getent passwd | sed 's/^/user /'
getent group | sed 's/^/group /'
systemctl list-unit-files --no-legend --no-pager --plain | sed 's/^/unit file /'
systemctl list-units --all --no-legend --no-pager --plain | awk '/valkyri/ { print "unit", $1 }'
find /sys/fs/bpf -mindepth 1 -printf 'pin %p\n'
ip -o link show | grep -o '^[0-9]*: [^:]*: .*xdp[^ ]* ' | sed 's/^/program on /' || true
bpftool -j prog show | grep -o '"type":"xdp"' | sed 's/^/program /' || true
findmnt --list --noheadings --output TARGET,FSTYPE | sed 's/^/mount /'
find /run -maxdepth 1 -printf 'run %p\n'
"""


def look(host: Host, source: str) -> list[str]:
    """All of it, but for the checkout at `source`; sorted."""
    told = host.told("sh", "-s", "--", source, input=LOOK, timeout=LOOK_S)
    return sorted(set(told.splitlines()))
