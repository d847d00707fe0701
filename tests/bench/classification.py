# SPDX-License-Identifier: Apache-2.0
"""What many limits and many prefixes cost a packet: two rulesets beside each other, the same traffic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from statistics import median

from bench.harness import BASE4, Case, Harness, Sources, ratio, udp4, udp6
from bench.rows import Row, row
from support.bpf import Kernel, loaded
from support.policy import limit, publish
from valkyrie.control import abi
from valkyrie.control.dataplane import pins
from valkyrie.control.limits import Limit

SETS = 131072
PACKETS, ROUNDS = 400_000, 21
PER_SOURCE = {"key": "src", "rate": "10/h", "burst": "100000"}
IN_TOTAL = {"key": "global", "rate": "100000000/s", "burst": "100000000"}
BASE6 = 0x20010DB8 << 96
FEW, MANY = 10, 100_000
SPREAD = 256  # addresses (IPv6: second 32-bit words) that each of the many prefixes spans
FEW_SPREAD = 1 << 22
EVERY_DIMENSION = "src 10.0.0.0/8 dst 198.51.100.0/24"
"""Of those that the 256 limits constrain, beside protocol and port."""
MATCH_BUDGET, PREFIX_BUDGET = "<= 1.4", "<= 1.5"


def matching() -> Iterator[Row]:
    """256 limits, of which two match, against one limit that constrains the same dimensions."""
    sources = Sources(1000)
    one, port, two, four = (
        "one limit",
        "one limit by port alone",
        "256 limits, two match",
        "256 limits, four match",
    )
    rulesets = {one: [_web(EVERY_DIMENSION)], port: [_web()], two: _limits(2), four: _limits(4)}
    with ExitStack() as stack:
        harness = stack.enter_context(Harness())
        cases: dict[str, Case] = {}
        for name, limits in rulesets.items():
            kernel = stack.enter_context(loaded(f"bench{len(cases)}", SETS))
            publish(kernel, limits)
            cases[name] = Case(_police(kernel), udp4(), sources)
        taken = harness.compare(cases, packets=PACKETS, rounds=ROUNDS)
    for name, values in taken.items():
        yield row(f"ns a packet, {name}", median(values), "ns")
    yield row(f"{two} / {one}", ratio(taken[two], taken[one]), "x", MATCH_BUDGET)
    for above, below in ((two, port), (four, one)):
        yield row(f"{above} / {below}", ratio(taken[above], taken[below]), "x")


def prefixes() -> Iterator[Row]:
    """100,000 prefixes against 10, of sources, for IPv4 and IPv6."""
    for version in (4, 6):
        for count in (1000, MANY):
            yield from _prefixes(version, count)


def _web(more: str = "") -> Limit:
    return limit("web", match=f"proto udp dport 53 {more}".strip(), **PER_SOURCE)


def _limits(matching: int) -> list[Limit]:
    """256 limits: `matching` match the frame; the others are told apart by port, source or destination."""
    more = [
        limit("all", **IN_TOTAL),
        limit("lan", match="src 10.0.0.0/8", key="src+dport", rate="10/h", burst="100000"),
        limit("udp", match="proto udp", key="dst", rate="100000000/s", burst="100000000"),
    ]
    found = [_web(), *more[: matching - 1]]
    others = (
        lambda i: f"proto udp dport {1000 + i}",
        lambda i: f"proto tcp src 172.16.{i}.0/24",
        lambda i: f"dst 192.168.{i}.0/24",
    )
    rest = range(abi.MAX_LIMITS - matching)
    return found + [limit(f"other{i}", match=others[i % 3](i), **PER_SOURCE) for i in rest]


def _prefixes(version: int, count: int) -> Iterator[Row]:
    """Packets of `count` sources, spread evenly over the prefixes, which two limits hold in turn."""
    sources = Sources(count, BASE4 if version == 4 else 0, MANY * SPREAD // count)
    frame = udp4() if version == 4 else udp6()
    with ExitStack() as stack:
        harness = stack.enter_context(Harness())
        cases: dict[str, Case] = {}
        for name, prefixes, spread in (("few", FEW, FEW_SPREAD), ("many", MANY, SPREAD)):
            kernel = stack.enter_context(loaded(f"bench{name}", SETS, abi.MAX_NODES))
            texts = [_prefix(version, i, spread) for i in range(prefixes)]
            halves = {"even": texts[::2], "odd": texts[1::2]}
            publish(
                kernel,
                [limit(half, match="src " + ",".join(part), **PER_SOURCE) for half, part in halves.items()],
            )
            cases[name] = Case(_police(kernel), frame, sources)
        taken = harness.compare(cases, packets=PACKETS, rounds=ROUNDS)
    told = f"IPv{version}, {count:,} sources"
    for name, prefixes in (("few", FEW), ("many", MANY)):
        yield row(f"ns a packet, {prefixes:,} prefixes, {told}", median(taken[name]), "ns")
    # With as many sources, each in a prefix of its own, no search tree stays in the CPU's caches.
    budget = PREFIX_BUDGET if count < MANY else None
    yield row(f"{MANY:,} prefixes / {FEW}, {told}", ratio(taken["many"], taken["few"]), "x", budget)


def _prefix(version: int, place: int, spread: int) -> str:
    free = spread.bit_length() - 1
    if version == 4:
        return f"{ip_address(BASE4 + place * spread)}/{32 - free}"
    return f"{ip_address(BASE6 + (place * spread << 64))}/{64 - free}"


def _police(kernel: Kernel) -> int:
    return kernel.dp.fd(pins.PROGRAM)
