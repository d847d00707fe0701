# SPDX-License-Identifier: Apache-2.0
"""What a match allows in each small dimension, as ranges of field values (see FIELD_* in bpf/abi.h)."""

from __future__ import annotations

from collections.abc import Mapping

from valkyrie.control import abi
from valkyrie.control.enums import Dimension, Fragment
from valkyrie.control.match import Match
from valkyrie.control.words import ICMP, ICMP6, WITH_PORTS, Ranges, merge

# A dimension that is not in the mapping is not constrained; empty ranges allow nothing.
Constraints = Mapping[Dimension, Ranges]

_FRAGMENTS = {
    "only": ((int(Fragment.FIRST), int(Fragment.LATER)),),
    "never": ((int(Fragment.NONE), int(Fragment.NONE)),),
}


def constraints_of(match: Match, nic_slots: Mapping[str, int]) -> Constraints:
    """The constraints of every dimension but addresses. Interfaces that no NIC slot has match nothing.

    Under `fragments skip` nothing need be said of fragments: a later one looks up LATER_FRAGMENT,
    NO_TCP_FLAGS and NO_ICMP, which no port, flag or type allows.
    """
    later = match.fragments in ("match", "only")
    return {**_layer3(match, nic_slots), **_layer4(match, later=later)}


def _layer3(match: Match, nic_slots: Mapping[str, int]) -> dict[Dimension, Ranges]:
    found: dict[Dimension, Ranges] = {}
    if match.fragments in _FRAGMENTS:
        found[Dimension.FRAGMENT] = _FRAGMENTS[match.fragments]
    if match.dscp:
        found[Dimension.DSCP] = match.dscp
    if match.ip is not None:
        found[Dimension.VERSION] = ((0, 0),) if match.ip == 4 else ((1, 1),)
    if match.vlan or match.untagged:
        # A tag of id 0 tells a priority: the frame is of no VLAN.
        untagged = ((0, 0), (abi.NO_VLAN, abi.NO_VLAN)) if match.untagged else ()
        found[Dimension.VLAN] = merge(match.vlan + untagged)
    if match.iface:
        slots = [nic_slots[name] for name in match.iface if name in nic_slots]
        found[Dimension.INTERFACE] = merge((slot, slot) for slot in slots)
    if match.length:
        found[Dimension.LENGTH] = match.length
    return found


def _layer4(match: Match, *, later: bool) -> dict[Dimension, Ranges]:
    """With `later`, a later fragment satisfies what is asked of ports, flags and type."""
    found: dict[Dimension, Ranges] = {}
    if match.proto:
        found[Dimension.PROTOCOL] = merge((value, value) for value in match.proto)
    elif later and (match.sport or match.dport):
        # LATER_FRAGMENT is every protocol's; ports mean those that have ports.
        found[Dimension.PROTOCOL] = merge((value, value) for value in WITH_PORTS)
    if match.tcp_flags is not None:
        found[Dimension.TCP_FLAGS] = _tcp_flags(*match.tcp_flags, later=later)
    if match.icmp_type:
        found[Dimension.ICMP] = _icmp_types(match, later=later)
    for dimension, ports in ((Dimension.SPORT, match.sport), (Dimension.DPORT, match.dport)):
        if ports:
            found[dimension] = ports + (((abi.LATER_FRAGMENT, abi.LATER_FRAGMENT),) if later else ())
    return found


def _tcp_flags(value: int, mask: int, *, later: bool) -> Ranges:
    allowed = [flags for flags in range(256) if flags & mask == value]
    return merge((flags, flags) for flags in [*allowed, *([abi.NO_TCP_FLAGS] if later else [])])


def _icmp_types(match: Match, *, later: bool) -> Ranges:
    allowed = [*match.icmp_types(ICMP), *(256 + number for number in match.icmp_types(ICMP6))]
    return merge((number, number) for number in [*allowed, *([abi.NO_ICMP] if later else [])])
