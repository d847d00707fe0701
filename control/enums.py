# SPDX-License-Identifier: Apache-2.0
"""The enumerations of bpf/abi.h. Apart from abi.py, so that the command line need not load numpy."""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Fragment(IntEnum):
    NONE = 0
    FIRST = 1
    LATER = 2


class Embedding(IntEnum):
    """What IPv4 is found inside of: nothing, ::ffff:0:0/96, 2002::/16."""

    NONE = 0
    MAPPED = 1
    SIX_TO_FOUR = 2


class Dimension(IntEnum):
    """A property of a packet that limits constrain; the value is its bit in ruleset.dimensions."""

    PROTOCOL = 0
    FRAGMENT = 1
    DSCP = 2
    VERSION = 3
    TCP_FLAGS = 4
    ICMP = 5
    VLAN = 6
    INTERFACE = 7
    LENGTH = 8
    SPORT = 9
    DPORT = 10
    SRC = 11
    DST = 12


class Action(IntEnum):
    DROP = 0
    SHADOW = 1
    BAN = 2
    OBSERVE = 3


class Measure(IntEnum):
    """What a token is: a packet, a byte of the IP packet, or a byte of the Ethernet frame."""

    PACKETS = 0
    IP_BYTES = 1
    FRAME_BYTES = 2


class KeyField(IntFlag):
    SPORT = 1
    DPORT = 2
    PROTOCOL = 4
    SRC = 8
    DST = 16


class Guard(IntFlag):
    """What a guard entry holds: protected prefixes are never dropped, whatever else says so."""

    PROTECT = 1
    EXEMPT = 2
    BAN = 4


class Reason(IntEnum):
    """Why a packet passed or was dropped."""

    NO_LIMIT = 0
    CONFORMS = 1
    PROTECTED = 2
    EXEMPT = 3
    CONTROL = 4
    NOT_IP = 5
    LIMIT = 6
    BAN = 7
    KERNEL_BAN = 8
    CONTENDED = 9
    BAD_ETHERNET = 10
    BAD_VLAN = 11
    BAD_IPV4 = 12
    BAD_IPV6 = 13
    BAD_EXTENSION = 14
    BAD_TCP = 15
    BAD_UDP = 16
    BAD_ICMP = 17
    BAD_SCTP = 18
    BAD_GRE = 19
    BAD_FRAGMENT = 20
