# SPDX-License-Identifier: Apache-2.0
"""GCRA, the table of buckets and the leases on them, in exact integers.

Times are in units of 1/64 ns. A bucket is its theoretical arrival time (TAT): when it is full again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from valkyrie.control.abi import LEASES, TIME_SHIFT, WAYS

WORD = (1 << 64) - 1


def time_units(nanoseconds: int) -> int:
    """Nanoseconds as bucket time."""
    return nanoseconds << TIME_SHIFT


@dataclass(frozen=True, slots=True)
class Plan:
    """What a token costs, how deep the bucket is, what a CPU buys ahead (0: nothing)."""

    mult: int
    shift: int
    tau: int
    batch: int = 0

    def cost(self, tokens: int) -> int:
        """Time units, rounded up: never cheaper than the rate says. The product must fit a word."""
        scaled = tokens * self.mult + (1 << self.shift) - 1
        assert scaled <= WORD, f"{tokens} tokens overflow the plan {self}"
        return scaled >> self.shift


@dataclass(slots=True)
class Bucket:
    """One way of a set. Fingerprint 0: never used."""

    fingerprint: int = 0
    tat: int = 0


@dataclass(slots=True)
class Lease:
    """Time units that one CPU has paid for and not spent; void from `valid_until` on."""

    fingerprint: int = 0
    left: int = 0
    valid_until: int = 0


@dataclass(slots=True)
class Charge:
    """What was taken, and from where, so that it can be given back."""

    holder: Bucket | Lease
    cost: int

    def undo(self) -> None:
        """Give it back."""
        if isinstance(self.holder, Bucket):
            self.holder.tat -= self.cost
        else:
            self.holder.left += self.cost


@dataclass(slots=True)
class Table:
    """Sets of WAYS buckets; `sets` is a power of two. One CPU's leases lie beside it."""

    sets: int
    full_open: bool = False
    inserted: int = 0
    evicted_live: int = 0
    leased: int = 0
    ways: dict[int, list[Bucket]] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)

    def find(self, fingerprint: int) -> Bucket | None:
        """The bucket, if the key has one."""
        for bucket in self.ways.get(fingerprint & (self.sets - 1), ()):
            if bucket.fingerprint == fingerprint:
                return bucket
        return None

    def bucket(self, fingerprint: int, now: int) -> Bucket:
        """The key's bucket. A newcomer takes over an idle way, the nearest to the one that its fingerprint
        names; if none is idle, the way with the smallest TAT, debt included.
        """
        found = self.find(fingerprint)
        if found is not None:
            return found
        ways = self.ways.setdefault(fingerprint & (self.sets - 1), [Bucket() for _ in range(WAYS)])
        near_first = [ways[fingerprint >> 61 ^ nth] for nth in range(WAYS)]
        victim = min(near_first, key=lambda way: way.tat if way.tat > now else 0)
        if victim.tat > now:
            self.evicted_live += 1
            if self.full_open:
                victim.tat = now
        victim.fingerprint = fingerprint
        self.inserted += 1
        return victim

    def take(self, fingerprint: int, plan: Plan, cost: int, now: int) -> Charge | None:
        """Charge the key, from the CPU's lease if it holds one; None: refused, nothing charged."""
        if plan.batch:
            lease = self.lease(fingerprint)
            if lease.fingerprint == fingerprint and now < lease.valid_until and lease.left >= cost:
                lease.left -= cost
                return Charge(lease, cost)
        bucket = self.bucket(fingerprint, now)
        if plan.batch and self._buy(fingerprint, bucket, plan, cost, now):
            lease = self.lease(fingerprint)
            lease.left -= cost
            return Charge(lease, cost)
        return Charge(bucket, cost) if charge(bucket, now, cost, plan.tau) else None

    def lease(self, fingerprint: int) -> Lease:
        """The one place where a lease on this bucket may lie."""
        return self.leases.setdefault(fingerprint >> 40 & (LEASES - 1), Lease())

    def _buy(self, fingerprint: int, bucket: Bucket, plan: Plan, cost: int, now: int) -> bool:
        """A batch for the lease; a good lease of another bucket is never pushed out."""
        lease = self.lease(fingerprint)
        good, mine = now < lease.valid_until, lease.fingerprint == fingerprint
        if cost > plan.batch or (good and not mine):
            return False
        if not charge(bucket, now, plan.batch, plan.tau):
            return False
        lease.left = (lease.left if good and mine else 0) + plan.batch
        lease.fingerprint, lease.valid_until = fingerprint, bucket.tat
        self.leased += 1
        return True


def charge(bucket: Bucket, now: int, cost: int, tau: int) -> bool:
    """GCRA: move the TAT by `cost` unless it would lie more than `tau` ahead."""
    after = max(bucket.tat, now) + cost
    if after - now > tau:
        return False
    bucket.tat = after
    return True
