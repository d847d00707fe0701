# SPDX-License-Identifier: Apache-2.0
"""Where this terminal's SSH session comes from, so that `attach` never cuts it off."""

from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from pathlib import Path

MAX_PARENTS = 64


def client_address(variable: str) -> str | None:
    """The client's address in SSH_CONNECTION ("client port server port"), or None when it holds none."""
    words = variable.split()
    if not words:
        return None
    try:
        address = ip_address(words[0].partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def environment(block: bytes) -> dict[str, str]:
    """The variables in the content of /proc/PID/environ."""
    pairs = (entry.partition(b"=") for entry in block.split(b"\0") if b"=" in entry)
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, _, value in pairs}


def parent_of(stat: str) -> int:
    """The parent's id in the content of /proc/PID/stat; the command's name may hold blanks and brackets."""
    return int(stat.rpartition(")")[2].split()[1])


def ssh_client(own: Mapping[str, str], pid: int, proc: Path = Path("/proc")) -> str | None:
    """The SSH client's address from this environment or that of an ancestor.

    sudo drops SSH_CONNECTION, the shell it was called from still has it. Processes that may not
    be read are passed over.
    """
    found = client_address(own.get("SSH_CONNECTION", ""))
    for _ in range(MAX_PARENTS):
        if found or pid <= 1:
            break
        try:
            variables = environment((proc / str(pid) / "environ").read_bytes())
            found = client_address(variables.get("SSH_CONNECTION", ""))
        except PermissionError:
            pass
        except (FileNotFoundError, ProcessLookupError):
            break
        try:
            pid = parent_of((proc / str(pid) / "stat").read_text())
        except (OSError, ValueError, IndexError):
            break
    return found
