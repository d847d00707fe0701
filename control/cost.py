# SPDX-License-Identifier: Apache-2.0
"""From rate and burst to the fixed-point figures of struct plan: what a token costs, how deep the bucket is.

Time is counted in units of 1/64 ns. The cost of n tokens is ceil(n * mult / 2^shift); every rounding goes
against the sender, so that a limit is never exceeded, by less than 1 % at the highest rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from valkyrie.control.enums import Measure
from valkyrie.control.errors import InvalidInput
from valkyrie.control.units import Rate, format_burst, format_duration, format_rate

UNITS_A_NS = 64
MAX_SHIFT = 32
MULT_BITS = 40  # with a shift; 2^17 bytes times this, and the rounding, fit in 64 bits
MULT_BITS_UNSHIFTED = 47
MAX_TAU = 1 << 62
MIN_BYTES_BURST = 1514  # one whole Ethernet frame
DEFAULT_BYTES_BURST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Cost:
    """`mult` and `shift` give the cost of a token, `tau` the capacity, in time units."""

    mult: int
    shift: int
    tau: int

    def of(self, tokens: int) -> int:
        """Time units that so many tokens cost."""
        return -(-tokens * self.mult >> self.shift)


def default_burst(rate: Rate) -> int:
    """One second's worth; at least a packet, or 64 KiB."""
    least = 1 if rate.measure is Measure.PACKETS else DEFAULT_BYTES_BURST
    return max(least, ceil(rate.per_second))


def cost_of(rate: Rate, burst: int | None) -> Cost:
    """The figures for `rate` with a burst in tokens (None: the default one).

    Raises InvalidInput when the burst is smaller than a frame, or takes more than two years to refill.
    """
    tokens = default_burst(rate) if burst is None else burst
    in_bytes = rate.measure is not Measure.PACKETS
    if in_bytes and tokens < MIN_BYTES_BURST:
        raise InvalidInput(
            f"a burst of {tokens} bytes would never let a full packet pass",
            f"at least {MIN_BYTES_BURST}B",
            format_burst(tokens, rate.measure),
        )
    units = Fraction(rate.period_ns * UNITS_A_NS, rate.amount)
    shift = _shift(units) if in_bytes else 0
    mult = ceil(units * 2**shift)
    tau = -(-tokens * mult >> shift)  # rounded up: a packet of just the burst's size passes a full bucket
    if tau >= MAX_TAU:
        raise InvalidInput(
            f"a burst of {format_burst(tokens, rate.measure)} at {format_rate(rate)} takes"
            f" {format_duration(tau // UNITS_A_NS, 1)} to refill",
            f"at most {format_duration(MAX_TAU // UNITS_A_NS, 1)}: a smaller burst or a higher rate",
            format_burst(tokens, rate.measure),
        )
    return Cost(mult, shift, tau)


def _shift(units: Fraction) -> int:
    """The most fraction bits that keep mult within its bound."""
    whole = ceil(units)
    if whole >= 1 << MULT_BITS_UNSHIFTED:
        raise ValueError(f"{whole} units a byte: parse_rate lets no rate so low pass")
    return next((shift for shift in range(MAX_SHIFT, 0, -1) if ceil(units * 2**shift) < 1 << MULT_BITS), 0)


def lease_of(cost: Cost, measure: Measure, cpus: int) -> int:
    """Time units that a CPU of `cpus` takes ahead at once; 0 when the burst is too small to share.

    All CPUs together strand at most 1/128 of the burst.
    """
    batch = cost.tau // (128 * cpus)
    if measure is not Measure.PACKETS:
        return batch if batch >= cost.of(MIN_BYTES_BURST) else 0
    return batch // cost.mult * cost.mult
