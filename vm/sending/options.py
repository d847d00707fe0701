# SPDX-License-Identifier: Apache-2.0
"""The command line: every number has bounds, and what is wrong is said in one line."""

import argparse
import math
import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import NoReturn

from profiles.table import MIXED, PROFILES
from profiles.target import Address, Network
from sending.errors import TrafficError
from sending.private import is_private

MOST_PACKETS, MOST_RATE, MOST_SECONDS, MOST_WAIT = 200_000, 100_000, 600, 30
MOST_SERVE_SECONDS = 86_400
LEAST_LENGTH, MOST_LENGTH = 24, 1400  # a mark, and what fits a frame behind any headers
MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", re.IGNORECASE)


class Parser(argparse.ArgumentParser):
    """Complains by an exception instead of several lines and an exit."""

    def error(self, message: str) -> NoReturn:
        raise TrafficError(f"{message}; {self.prog} --help tells what there is")


def whole(least: int, most: int) -> Callable[[str], int]:
    """Reads a whole number within bounds."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
        return number

    return read


def amount(least: float, most: float) -> Callable[[str], float]:
    """Reads a number within bounds."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least:g} to {most:g}")
        return number

    return read


def address(text: str) -> Address:
    """Reads an IPv4 or IPv6 address."""
    try:
        return ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IPv4 or IPv6 address") from None


def prefix(text: str) -> Network:
    """Reads a prefix."""
    try:
        return ip_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no prefix: {error}") from None


def mac(text: str) -> str:
    """Reads a MAC address."""
    if not MAC.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no MAC address like 02:00:00:00:00:01")
    return text.lower()


def sender(about: str) -> Parser:
    """The options of a run."""
    parser = Parser("traffic.py", description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", metavar="PROFILE", help="one of `traffic.py list`")
    need = parser.add_argument_group("where to")
    need.add_argument("--to", required=True, type=address, metavar="ADDRESS", help="IPv4 or IPv6")
    need.add_argument("--nic", required=True, metavar="NIC", help="by which NIC")
    need.add_argument("--mac", type=mac, help="MAC address to send to; else the kernel asks for it")
    need.add_argument(
        "--i-own-this-network", action="store_true", help="send to a public address all the same"
    )
    much = parser.add_argument_group("how much")
    much.add_argument("--count", type=whole(1, MOST_PACKETS), default=1000, help="packets (default: 1000)")
    much.add_argument("--rate", type=amount(0.1, MOST_RATE), default=500, help="packets/s (default: 500)")
    much.add_argument("--seconds", type=amount(0.1, MOST_SECONDS), default=60, help="at most so long (60)")
    much.add_argument("--wait", type=amount(0, MOST_WAIT), default=1, help="seconds for late answers (1)")
    look = parser.add_argument_group("how the packets look")
    look.add_argument("--seed", type=whole(0, 2**63), help="the same packets again; else random")
    look.add_argument(
        "--from", dest="sources", type=prefix, metavar="PREFIX", help="random sources; legit: own"
    )
    look.add_argument("--port", type=whole(1, 65535), default=7007, help="UDP port, where `serve` is (7007)")
    look.add_argument("--own-port", type=whole(1, 65535), default=40007, help="UDP port of answers (40007)")
    look.add_argument("--tcp-port", type=whole(1, 65535), default=80, help="TCP port (80)")
    look.add_argument("--http-port", type=whole(1, 65535), help="legit: HTTP requests to this port as well")
    look.add_argument("--dscp", type=whole(0, 63), default=0, help="DSCP (0)")
    look.add_argument("--length", type=whole(LEAST_LENGTH, MOST_LENGTH), help="bytes of UDP and ICMP payload")
    look.add_argument("--vlan", type=whole(0, 4095), default=10, help="VLAN, of qinq the inner (10)")
    look.add_argument("--outer-vlan", type=whole(0, 4095), default=100, help="outer VLAN of qinq (100)")
    look.add_argument(
        "--flood", default="syn-flood", metavar="PROFILE", help="what mixed is beside (syn-flood)"
    )
    look.add_argument(
        "--share", type=whole(2, 10_000), default=10, help="mixed: a user's packet in so many (10)"
    )
    report(parser)
    return parser


def server(about: str) -> Parser:
    """The options of `serve`."""
    parser = Parser("traffic.py serve", description=about)
    parser.add_argument("--address", default="::", help="where to listen (::, that is everywhere)")
    parser.add_argument("--port", type=whole(1, 65535), default=7007, help="UDP port (7007)")
    parser.add_argument(
        "--seconds", type=amount(0.1, MOST_SERVE_SECONDS), default=600, help="at most so long (600)"
    )
    report(parser)
    return parser


def report(parser: Parser) -> None:
    """Where the report goes."""
    parser.add_argument("--json", metavar="FILE", help="the report as JSON; - is standard output")


def checked(given: argparse.Namespace) -> None:
    """Complain about what does not go together."""
    for name in (given.profile, given.flood):
        if name not in PROFILES:
            raise TrafficError(f"there is no profile {name!r}; there are {', '.join(PROFILES)}")
    if given.flood == MIXED:
        raise TrafficError("--flood mixed would be a flood in itself; take another profile")
    family = PROFILES[given.flood if given.profile == MIXED else given.profile].family
    if family not in (None, given.to.version):
        raise TrafficError(
            f"{given.profile} is IPv{family} alone, and {given.to} is not; give an IPv{family} --to"
        )
    if given.sources and given.sources.version != given.to.version:
        raise TrafficError(f"--from {given.sources} and --to {given.to} are not of one family")
    if given.to.is_multicast or given.to.is_unspecified:
        raise TrafficError(f"{given.to} is not the address of one machine")
    if not is_private(given.to) and not given.i_own_this_network:
        raise TrafficError(
            f"{given.to} is not a private address: floods go to networks of your own. "
            "If this is one, say so with --i-own-this-network"
        )
