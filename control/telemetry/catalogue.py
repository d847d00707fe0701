# SPDX-License-Identifier: Apache-2.0
"""All metrics of the appliance, in one table for Prometheus, OTLP, docs/metrics.md and the dashboard.

Names, units and attributes follow OpenTelemetry's conventions; those that OpenTelemetry defines are used as
they are (http.server.*, process.*). Series are bounded: by 256 limits, 256 credentials, 32 adapters and the
API's routes.
"""

from __future__ import annotations

from collections.abc import Iterator

from valkyrie.control.telemetry import readers as r
from valkyrie.control.telemetry.metric import Family, Kind, Metric, Reader
from valkyrie.control.telemetry.snapshot import Snapshot

LIMIT = ("valkyrie.limit.name",)
REASON = ("valkyrie.reason", "valkyrie.verdict")
NIC = ("network.interface.name",)
STORE = ("valkyrie.store.name",)
OPERATION = ("valkyrie.store.name", "valkyrie.store.operation")
ADAPTER = ("valkyrie.notification.adapter",)
API = ("http.request.method", "http.route", "http.response.status_code")
PACKET, BYTES, SECONDS, YES = "{packet}", "By", "s", ""


def _metric(kind: Kind, name: str, unit: str, text: str, read: Reader, *attributes: str) -> Metric:
    return Metric(name, kind, unit, text, attributes, read)


def _counter(name: str, unit: str, text: str, read: Reader, *attributes: str) -> Metric:
    return _metric("counter", name, unit, text, read, *attributes)


def _gauge(name: str, unit: str, text: str, read: Reader, *attributes: str) -> Metric:
    return _metric("gauge", name, unit, text, read, *attributes)


def _histogram(name: str, unit: str, text: str, read: Reader, *attributes: str) -> Metric:
    return _metric("histogram", name, unit, text, read, *attributes)


_LIMITS = (
    _counter("valkyrie.limit.packet.matched", PACKET, "Packets and calls that the limit was asked about.",
             r.limits("matched"), *LIMIT),
    _counter("valkyrie.limit.packet.passed", PACKET, "Those of them that passed in the end.",
             r.limits("passed"), *LIMIT),
    _counter("valkyrie.limit.packet.dropped", PACKET, "Packets that it dropped, calls that it refused.",
             r.limits("dropped"), *LIMIT),
    _counter("valkyrie.limit.packet.shadow_dropped", PACKET, "Packets that a shadow would have dropped.",
             r.limits("shadow_dropped"), *LIMIT),
    _counter("valkyrie.limit.io.matched", BYTES, "Bytes of the IP packets that the limit was asked about.",
             r.limits("matched_bytes"), *LIMIT),
    _counter("valkyrie.limit.io.passed", BYTES, "Bytes of those of them that passed in the end.",
             r.limits("passed_bytes"), *LIMIT),
    _counter("valkyrie.limit.io.dropped", BYTES, "Bytes of the IP packets that the limit dropped.",
             r.limits("dropped_bytes"), *LIMIT),
    _counter("valkyrie.limit.io.shadow_dropped", BYTES, "Bytes of those that a shadow would have dropped.",
             r.limits("shadow_dropped_bytes"), *LIMIT),
    _counter("valkyrie.limit.lease.purchases", "{purchase}", "Batches of tokens that CPUs bought ahead.",
             r.limits("leased"), *LIMIT),
    _gauge("valkyrie.limit.count", "{limit}", "Limits in force.", r.by_action, "valkyrie.limit.action"),
    _gauge("valkyrie.override.count", "{override}", "Overrides of all limits.", r.one(lambda s: s.overrides)),
    _gauge("valkyrie.exempt.count", "{prefix}", "Prefixes that always pass.", r.one(lambda s: s.exempts)),
    _gauge("valkyrie.ban.count", "{prefix}", "Prefixes that a person banned.", r.one(lambda s: s.bans)),
    _counter("valkyrie.policy.serial", "{change}", "Changes of what is in force, since the state was made.",
             r.one(lambda s: s.serial)),
)  # fmt: skip

_PACKETS = (
    _counter("valkyrie.packet.count", PACKET, "Packets by the reason of their verdict.",
             r.reasons("packets"), *REASON),
    _counter("valkyrie.packet.io", BYTES, "Bytes of frames by the reason of their verdict.",
             r.reasons("bytes"), *REASON),
    _gauge("valkyrie.nic.attached", YES, "1: the NIC carries the program.",
           r.nics(lambda nic: int(nic.attached)), *NIC),
    _gauge("valkyrie.nic.native", YES, "1: in the driver; 0: in generic mode, or not attached.",
           r.nics(lambda nic: int(nic.mode == "native")), *NIC),
    _gauge("valkyrie.nic.up", YES, "1: the NIC is there and its link is up.",
           r.nics(lambda nic: int(nic.running)), *NIC),
    _counter("valkyrie.nic.packet.received", PACKET, "Packets received, as the driver counts them.",
             r.counted("packets"), *NIC),
    _counter("valkyrie.nic.io.received", BYTES, "Bytes received, as the driver counts them.",
             r.counted("bytes"), *NIC),
    _counter("valkyrie.nic.packet.missed", PACKET, "Packets that the driver or the host's stack dropped.",
             r.counted("dropped"), *NIC),
)  # fmt: skip

_TABLE = (
    _gauge("valkyrie.table.usage", "{bucket}", "Buckets that are not full; looked at once a second or less.",
           r.one(lambda s: s.occupancy)),
    _gauge("valkyrie.table.limit", "{bucket}", "Buckets that the table holds.", r.one(lambda s: s.capacity)),
    _counter("valkyrie.table.inserted", "{bucket}", "Keys that got a bucket.", r.table("inserted")),
    _counter("valkyrie.table.evicted", "{bucket}", "Insertions that took over a bucket in use.",
             r.table("evicted_live")),
    _counter("valkyrie.table.contended", "{attempt}", "Times that a bucket's word or lock was not to be won.",
             r.table("contended")),
    _counter("valkyrie.table.banned", "{ban}", "Bans that limits made.", r.table("bans")),
    _gauge("valkyrie.lease.count", "{lease}", "Leases with tokens left: held, or lapsed unspent.",
           r.leases, "valkyrie.lease.state"),
    _gauge("valkyrie.lease.stranded", SECONDS, "What leases hold unspent, in time of their limits' refill.",
           r.stranded, "valkyrie.lease.state"),
    _counter("valkyrie.event.sent", "{event}", "Kernel events given to the daemon.", r.table("events_sent")),
    _counter("valkyrie.event.lost", "{event}", "Kernel events that found the ring full.",
             r.table("events_lost")),
    _counter("valkyrie.event.limited", "{event}", "Kernel events that events.rate held back.",
             r.table("events_limited")),
)  # fmt: skip

_STORES = (
    _gauge("valkyrie.store.in_use", YES, "1: the chain asks this store.",
           r.stores(lambda one: int(one.state == "in-use")), *STORE),
    _gauge("valkyrie.store.up", YES, "1: the store serves, or did when it was probed last.",
           r.stores(lambda one: int(one.state in ("in-use", "ready", "well"))), *STORE),
    _gauge("valkyrie.store.connection.count", "{connection}", "Connections open.", r.connections, *STORE),
    _histogram("valkyrie.store.operation.duration", SECONDS, "What the daemon's own calls take.",
               r.durations, *OPERATION),
    _counter("valkyrie.store.operation.errors", "{call}", "The daemon's own calls that failed.",
             r.failures, *OPERATION),
    _gauge("valkyrie.store.breaker.open", "{breaker}", "Circuit breakers open now, one a server.",
           r.own("breaker_open"), *STORE),
    _counter("valkyrie.store.breaker.opened", "{opening}", "Times that a circuit breaker opened.",
             r.own("breaker_opened"), *STORE),
    _counter("valkyrie.store.switches", "{switch}", "Switches of the chain to another store.",
             r.switches, "valkyrie.store.switch"),
    _counter("valkyrie.store.degraded", "{decision}", "Decisions of store.when_all_fail.",
             r.chain_count("degraded")),
    _counter("valkyrie.store.carried", "{bucket}", "Buckets told to another store at a switch.",
             r.chain_count("carried")),
    _counter("valkyrie.store.forgotten", "{bucket}", "Buckets in debt not carried, for want of room.",
             r.chain_count("forgotten")),
    _gauge("valkyrie.sync.up", YES, "1: the store takes what it is told.",
           r.sync(lambda s: int(s.sync.state == "ok"))),
    _gauge("valkyrie.sync.owner", YES, "1: this appliance owns its name in the store.",
           r.sync(lambda s: int(s.sync.owner))),
    _gauge("valkyrie.sync.lag", SECONDS, "What the kernel held so long ago is in the store.",
           r.sync(lambda s: s.sync.lag_s)),
    _gauge("valkyrie.sync.owed", "{bucket}", "Buckets that the round under way has still to write.",
           r.sync(lambda s: s.sync.owed)),
    _counter("valkyrie.sync.written", "{bucket}", "Buckets written to the store.",
             r.sync(lambda s: s.sync.written)),
    _counter("valkyrie.sync.deleted", "{bucket}", "Buckets deleted in the store.",
             r.sync(lambda s: s.sync.dropped)),
    _counter("valkyrie.sync.rounds", "{round}", "Rounds that ended well.", r.sync(lambda s: s.sync.rounds)),
)  # fmt: skip

_DAEMON = (
    _histogram("http.server.request.duration", SECONDS, "What requests of the API take.", r.api, *API),
    _gauge("valkyrie.credential.age", SECONDS, "Since the credential's version in force was set.",
           r.credentials, "valkyrie.credential.name"),
    _gauge("valkyrie.credential.readable", YES, "0: the credentials cannot be read.",
           r.one(lambda s: int(not s.credentials_problem))),
    _gauge("valkyrie.alert.firing", "{alert}", "Alerts that fire.", r.firing, "valkyrie.alert.severity"),
    _gauge("valkyrie.notification.failing", YES, "1: the last message could not be delivered.",
           r.adapters(lambda one: int(one.failing)), *ADAPTER),
    _gauge("valkyrie.notification.queued", "{message}", "Messages that wait.",
           r.adapters(lambda one: one.queued), *ADAPTER),
    _counter("valkyrie.notification.dropped", "{message}", "Messages that its full queue ever dropped.",
             r.adapters(lambda one: one.dropped), *ADAPTER),
    _gauge("valkyrie.notification.dead", "{message}", "Messages given up, unless somebody tries them again.",
           r.adapters(lambda one: one.dead), *ADAPTER),
    _counter("valkyrie.notification.unheard", "{message}", "Messages that had no adapter to go to.",
             r.one(lambda s: s.unheard)),
    _counter("valkyrie.telemetry.exports", "{batch}", "Batches for the collector by what became of them.",
             r.exports, "valkyrie.telemetry.signal", "valkyrie.telemetry.outcome"),
    _counter("process.cpu.time", SECONDS, "Processor time of valkyried.", r.cpu, "cpu.mode"),
    _gauge("process.memory.usage", BYTES, "Resident memory of valkyried, pages of the BPF maps included.",
           r.one(lambda s: s.process.memory)),
    _gauge("process.thread.count", "{thread}", "Threads of valkyried.", r.one(lambda s: s.process.threads)),
    _gauge("process.unix.file_descriptor.count", "{file_descriptor}", "Open files of valkyried.",
           r.one(lambda s: s.process.fds)),
    _gauge("process.uptime", SECONDS, "Since valkyried started.", r.one(lambda s: s.process.uptime_s)),
    _gauge("valkyrie.build.info", YES, "Always 1; which version runs.", r.build, "service.version"),
)  # fmt: skip

GROUPS: tuple[tuple[str, tuple[Metric, ...]], ...] = (
    ("Limits and policy", _LIMITS),
    ("Packets and NICs", _PACKETS),
    ("Table, leases and events", _TABLE),
    ("Stores and sync", _STORES),
    ("The daemon", _DAEMON),
)
CATALOGUE: tuple[Metric, ...] = tuple(metric for _, group in GROUPS for metric in group)


def samples(seen: Snapshot) -> Iterator[Family]:
    """Every metric with its series; some have none at times, as those of a store that has not started."""
    for metric in CATALOGUE:
        yield Family(metric, tuple(metric.read(seen)))
