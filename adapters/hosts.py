# SPDX-License-Identifier: Apache-2.0
"""Which hosts a secret may go to without encryption."""

from __future__ import annotations

from ipaddress import ip_address


def on_this_host(host: str) -> bool:
    """Whether what is sent there stays on this host, so that it need not be encrypted."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
