# SPDX-License-Identifier: Apache-2.0
"""How the catalogue reads a snapshot. Pure; each returns a reader or is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from valkyrie.adapters.hybrid.events import MemberStatus
from valkyrie.adapters.stats import BOUNDS_MS
from valkyrie.control.counted import counter
from valkyrie.control.enums import Reason
from valkyrie.control.telemetry.meters import BOUNDS_S
from valkyrie.control.telemetry.metric import Distribution, Point, Reader
from valkyrie.control.telemetry.snapshot import AdapterFigures, NicFigures, Snapshot

STORE_BOUNDS_S = tuple(bound / 1000 for bound in BOUNDS_MS)


def one(read: Callable[[Snapshot], float]) -> Reader:
    """A metric of a single series."""
    return lambda seen: (((), read(seen)),)


def limits(field: str) -> Reader:
    """A counter of each limit, as `counter` has it."""

    def read(seen: Snapshot) -> Iterable[Point]:
        column = counter(seen.counters, field).tolist()
        return (((one.name,), column[one.slot]) for one in seen.limits)

    return read


def reasons(field: str) -> Reader:
    """A field of abi.REASON_STATS, of each reason with its verdict."""

    def read(seen: Snapshot) -> Iterable[Point]:
        column = seen.reasons[field].tolist()
        return (((reason.name.lower(), verdict(reason)), column[reason]) for reason in Reason)

    return read


def verdict(reason: Reason) -> str:
    """What becomes of a packet by a reason; of malformed ones the settings decide."""
    if reason >= Reason.BAD_ETHERNET:
        return "malformed"
    return "drop" if reason >= Reason.LIMIT else "pass"


def table(name: str) -> Reader:
    return one(lambda seen: seen.table.get(name, 0))


def by_action(seen: Snapshot) -> Iterator[Point]:
    for action in ("drop", "shadow", "ban"):
        yield (action,), sum(limit.action == action for limit in seen.limits)


def nics(read: Callable[[NicFigures], float]) -> Reader:
    return lambda seen: (((nic.name,), read(nic)) for nic in seen.nics)


def counted(field: str) -> Reader:
    """What drivers count; a NIC that is not there has no series."""
    return lambda seen: (
        ((nic.name,), getattr(nic.received, field)) for nic in seen.nics if nic.received is not None
    )


def stores(read: Callable[[MemberStatus], float]) -> Reader:
    return lambda seen: (((store.name,), read(store)) for store in _members(seen))


def own(name: str) -> Reader:
    """A number of a store's own; stores without it have no series."""

    def read(seen: Snapshot) -> Iterator[Point]:
        for store in _members(seen):
            value = None if store.stats is None else store.stats.extra.get(name)
            if isinstance(value, int | float):
                yield (store.name,), value

    return read


def connections(seen: Snapshot) -> Iterator[Point]:
    for store in _members(seen):
        if store.stats is not None:
            yield (store.name,), store.stats.connections


def durations(seen: Snapshot) -> Iterator[Point]:
    for store in _members(seen):
        for name, operation in store.stats.operations.items() if store.stats is not None else ():
            if operation.histogram:
                distribution = Distribution(STORE_BOUNDS_S, operation.histogram, operation.total_ms / 1000)
                yield (store.name, name), distribution


def failures(seen: Snapshot) -> Iterator[Point]:
    for store in _members(seen):
        for name, operation in store.stats.operations.items() if store.stats is not None else ():
            yield (store.name, name), operation.errors


def switches(seen: Snapshot) -> Iterator[Point]:
    if seen.chain is not None:
        yield ("switch-over",), seen.chain.switch_overs
        yield ("fail-back",), seen.chain.fail_backs
        yield ("all-away",), seen.chain.all_aways


def chain_count(field: str) -> Reader:
    """A field of ChainStatus, once the stores have started."""
    return lambda seen: () if seen.chain is None else (((), getattr(seen.chain, field)),)


def sync(read: Callable[[Snapshot], float]) -> Reader:
    """No series without a sync: 0 seconds behind would look well."""
    return lambda seen: () if seen.sync.state == "off" else (((), read(seen)),)


def api(seen: Snapshot) -> Iterator[Point]:
    for call in seen.calls:
        yield (
            (call.method, call.route, str(call.status)),
            Distribution(BOUNDS_S, call.histogram, call.total_s),
        )


def leases(seen: Snapshot) -> Iterable[Point]:
    return (("held",), seen.leases.held), (("lapsed",), seen.leases.lapsed)


def stranded(seen: Snapshot) -> Iterable[Point]:
    return (("held",), seen.leases.held_s), (("lapsed",), seen.leases.lapsed_s)


def credentials(seen: Snapshot) -> Iterable[Point]:
    return (((one.name,), one.age_s) for one in seen.credentials)


def firing(seen: Snapshot) -> Iterable[Point]:
    return (((severity,), count) for severity, count in seen.firing.items())


def adapters(read: Callable[[AdapterFigures], float]) -> Reader:
    return lambda seen: (((one.name,), read(one)) for one in seen.adapters)


def cpu(seen: Snapshot) -> Iterable[Point]:
    return (("user",), seen.process.user_s), (("system",), seen.process.system_s)


def exports(seen: Snapshot) -> Iterable[Point]:
    return chain.from_iterable(
        (((sent.signal, "delivered"), sent.delivered), ((sent.signal, "failed"), sent.failed),
         ((sent.signal, "dropped"), sent.dropped))
        for sent in seen.exports
    )  # fmt: skip


def build(seen: Snapshot) -> Iterable[Point]:
    return (((seen.version,), 1),)


def _members(seen: Snapshot) -> tuple[MemberStatus, ...]:
    return () if seen.chain is None else seen.chain.stores
