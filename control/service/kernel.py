# SPDX-License-Identifier: Apache-2.0
"""The kernel's data plane as the service sees it."""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from valkyrie.control import abi
from valkyrie.control.config import Settings
from valkyrie.control.dataplane import buckets as table
from valkyrie.control.dataplane import build, explain, maps, migrate, stats
from valkyrie.control.dataplane.buckets import Bucket
from valkyrie.control.dataplane.build import Outcome
from valkyrie.control.dataplane.events import EventReader
from valkyrie.control.dataplane.keyname import BAN_KEY, record_of
from valkyrie.control.dataplane.maps import Dataplane
from valkyrie.control.dataplane.packet import build as build_packet
from valkyrie.control.dataplane.packet import parse as parse_packet
from valkyrie.control.dataplane.ring import Records, Ring
from valkyrie.control.dataplane.source import Sizes, possible_cpus
from valkyrie.control.dataplane.watches import Watches
from valkyrie.control.durable import fill
from valkyrie.control.durable.names import Entries
from valkyrie.control.errors import InvalidInput
from valkyrie.control.key import KeySpec
from valkyrie.control.limits import Limit
from valkyrie.control.prefix import canonical_prefix, parse_prefix
from valkyrie.control.ruleset.compile import CompiledRuleset
from valkyrie.control.service import told
from valkyrie.control.service.engine import Banned, Figures, LeaseFigures
from valkyrie.control.service.explained import Asked, in_words
from valkyrie.control.service.kernel_nics import KernelNics
from valkyrie.control.service.told import Pricing
from valkyrie.control.service.world import World

log = logging.getLogger(__name__)

ETHERNET_BYTES, VLAN_BYTES = 14, 4


def sizes_of(buckets: int, cpus: int) -> Sizes:
    """What a build for a table of so many buckets is made of."""
    return Sizes(buckets // abi.WAYS, abi.MAX_NODES, cpus)


class KernelEngine(KernelNics):
    """Pinned maps and program. Satisfies service.engine.Engine."""

    def __init__(self, settings: Settings, secret: bytes, random_bytes: Callable[[int], bytes]) -> None:
        """`secret`: 16 bytes for the bucket hash, kept with the state so that buckets find their place."""
        self._pins = settings.pin_dir
        self._record = settings.state_dir / "build.json"
        self._unfilled = settings.state_dir / "unfilled"  # there while a new table lacks what a store holds
        self._is_new = False
        self._calls = threading.Lock()
        self._calls_ready = False
        self._calls_record = settings.state_dir / "calls.json"
        self._values = settings.store.yggdrasil.max_values
        self._sizes = sizes_of(settings.table.buckets, possible_cpus())
        self._secret = struct.unpack("=QQ", secret)
        self._random_bytes = random_bytes
        self._opened: Dataplane | None = None
        self._outcome: Outcome | None = None

    def start(self, ruleset: CompiledRuleset) -> None:
        if migrate.needed(self._pins, self._sizes):
            self._migrate(ruleset)
        else:
            self._outcome = build.ensure(self._pins, self._sizes, self._record)
            self._opened = Dataplane(self._pins)
            self._note_new_table(self._opened)
            maps.initialise(self._opened, self._secret, *struct.unpack("=Q", self._random_bytes(8)))
            if self._opened.serial > int(ruleset.header["serial"]):
                self._forget_others(ruleset)
            self._opened.publish(ruleset)
        self.watches.clear()
        log.info("program %d %s", self._made.build.prog_id, self._made.how)

    def _forget_others(self, ruleset: CompiledRuleset) -> None:
        """The state is older than what is in force: lost, put back from a copy, or not written when the
        daemon was killed. Its numbers will be given anew, and must not come with buckets and counters.
        """
        plane = self._plane
        log.warning(
            "ruleset %d is in force and the state knows %d: what the state does not know is forgotten",
            plane.serial, int(ruleset.header["serial"]),
        )  # fmt: skip
        table.purge_others(plane, ruleset.limits["uid"].tolist(), time.monotonic_ns())
        stats.zero(plane, set(range(abi.MAX_LIMITS)) - set(ruleset.limits["slot"].tolist()))

    def _migrate(self, ruleset: CompiledRuleset) -> None:
        """Another table size or ABI: the old program polices until each NIC has the new one."""
        made = migrate.begin(
            self._pins, self._sizes, self._record, lambda plane: plane.publish(ruleset), time.monotonic_ns
        )
        self._outcome = Outcome("upgraded", made, 0.0)
        self._opened = Dataplane(self._pins)

    def finish(self) -> None:
        if not migrate.unfinished(self._pins):
            return
        late = sorted(name for name, program in self._ours().items() if program.id != self.program_id())
        if late:
            log.warning("%s: still policed by the former program", ", ".join(late))
            return
        migrate.finish(self._pins, time.monotonic_ns())

    def _note_new_table(self, plane: Dataplane) -> None:
        """Before it is made ready, so that a daemon killed before the table was filled tells the next."""
        if int(plane.control["abi"][0]) == 0:
            self._is_new = True
            with contextlib.suppress(OSError):  # a full disk: then this daemon alone knows
                self._unfilled.touch()

    @property
    def unfilled(self) -> bool:
        return self._is_new or self._unfilled.exists()

    def filled(self) -> None:
        self._is_new = False
        self._unfilled.unlink(missing_ok=True)

    def ready_for_calls(self) -> None:
        """Have the programs for calls pinned beside the packets'; a second if they must be built. From any
        thread. Raises as start().
        """
        with self._calls:
            if not self._calls_ready:
                build.ensure_call(self._pins, self._sizes, self._calls_record, self._values)
                self._calls_ready = True

    @property
    def building(self) -> bool:
        return self._calls.locked()

    def restore(self, entries: Entries, specs: Mapping[int, KeySpec]) -> int:
        self.ready_for_calls()
        return fill.restore(self._pins, entries, specs)

    @property
    def plane(self) -> Dataplane:
        """The mapped tables. From any thread."""
        return self._plane

    @property
    def _plane(self) -> Dataplane:
        assert self._opened is not None, "start() comes first"
        return self._opened

    @property
    def _made(self) -> Outcome:
        assert self._outcome is not None, "start() comes first"
        return self._outcome

    @property
    def cpus(self) -> int:
        return self._sizes.cpus

    @property
    def capacity(self) -> int:
        return self._sizes.sets * abi.WAYS

    def program_id(self) -> int:
        return self._made.build.prog_id

    def identity(self) -> Mapping[str, Any]:
        made = self._made
        return {"id": made.build.prog_id, "tag": made.build.tag, "how": made.how, "seconds": made.seconds}

    def publish(self, ruleset: CompiledRuleset) -> None:
        self._plane.publish(ruleset)

    def purge(self, uids: Collection[int]) -> None:
        table.reset(self._plane, uids, time.monotonic_ns())

    def cap(self, uid: int, tau: int) -> None:
        table.cap(self._plane, uid, time.monotonic_ns(), tau)

    def zero(self, slots: Collection[int]) -> None:
        stats.zero(self._plane, slots)

    def leases(self) -> LeaseFigures:
        return LeaseFigures(*stats.leases(self._plane, time.monotonic_ns()))

    def figures(self) -> Figures:
        return Figures(stats.limits(self._plane), stats.reasons(self._plane), stats.table(self._plane))

    def occupancy(self) -> int:
        return stats.occupancy(self._plane, time.monotonic_ns())

    def buckets(
        self, world: World, *, limit: str | None, key: str | None, live: bool, count: int
    ) -> list[dict[str, Any]]:
        names = [limit] if limit is not None else list(world.allotment.slots)
        limits = {world.allotment.slots[name].uid: world.limits[name] for name in names}
        now = time.monotonic_ns()
        if key is None:
            specs = {uid: one.key_spec for uid, one in limits.items()}
            found = table.find(self._plane, specs, now, live=live, count=count)
        else:
            found = self._find_key(limits, key, now, live=live, count=count)
        prices = {
            uid: Pricing(limits[uid], world.overrides_for(limits[uid].name))
            for uid in {one.uid for one in found}
        }
        return [
            told.bucket(limits[one.uid], one.key, one.level, prices[one.uid].of(one.key)) for one in found
        ]

    def _find_key(
        self, limits: Mapping[int, Limit], key: str, now: int, *, live: bool, count: int
    ) -> list[Bucket]:
        """Buckets of one key, under each limit whose keys could be written so."""
        found: list[Bucket] = []
        for uid, limit in limits.items():
            try:
                record = record_of(key, limit.key_spec)
            except InvalidInput:
                if len(limits) == 1:
                    raise
                continue
            found += table.find(
                self._plane, {uid: limit.key_spec}, now, record=record, live=live, count=count
            )
        return sorted(found, key=lambda one: -one.level)[:count]

    def reset(self, world: World, limit: str, key: str | None) -> int:
        uid = world.allotment.slots[limit].uid
        record = None if key is None else record_of(key, world.limits[limit].key_spec)
        return table.reset(self._plane, [uid], time.monotonic_ns(), record)

    def bans(self, count: int) -> list[Banned]:
        found = table.find(self._plane, {abi.UID_BAN: BAN_KEY}, time.monotonic_ns(), count=count)
        return [Banned(canonical_prefix(one.key), one.level >> abi.TIME_SHIFT) for one in found]

    def lift(self, prefix: str) -> int:
        parsed = parse_prefix(prefix)
        if parsed.length != (BAN_KEY.src4 if parsed.version == 4 else BAN_KEY.src6):
            return 0
        record = record_of(prefix, BAN_KEY)
        return table.reset(self._plane, [abi.UID_BAN], time.monotonic_ns(), record)

    def explain(self, packet: str, world: World, order: Sequence[str]) -> dict[str, Any]:
        asked = parse_packet(packet)
        answer = explain.run(self._plane, asked)
        frame = len(build_packet(asked))
        sizes = {
            "packets": 1,
            "frame": frame,
            "ip": frame - ETHERNET_BYTES - (VLAN_BYTES if asked.vlan is not None else 0),
        }
        # After those that packets are asked about come those for calls alone; observers take part in nothing.
        shown = [
            Asked(limit, world.allotment.slots[name].slot, sizes[limit.measure], position)
            for position, name in enumerate(order[: len(answer.limits)])
            if (limit := world.limits.get(name)) is not None
        ]
        return in_words(answer, shown)

    async def events(self) -> AsyncIterator[Records]:
        """Drops as the kernel reports them, for ever: batches of abi.EVENT."""
        with EventReader(self._pins) as reader:
            async for batch in reader.batches():
                yield batch

    async def records(self, ring: str, dtype: np.dtype[Any]) -> AsyncIterator[Records]:
        """What comes by another ring, for ever, in batches."""
        with Ring(self._pins / ring, dtype) as reader:
            async for batch in reader.batches():
                yield batch

    @property
    def watches(self) -> Watches:
        return Watches(self._plane.control, self._plane.watch, self._plane.watch_stats)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
