# SPDX-License-Identifier: Apache-2.0
"""One run: packets sent at a pace, answers taken in between, everything bounded in count and time."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from random import Random

from profiles.target import Builder, Made, Target
from sending.answers import answer
from sending.ledger import Ledger
from sending.nic import Wire
from sending.web import Web

AHEAD = 5000  # packets that are built before they are sent, so that building does not slow sending
SLOW = 250  # packets/s up to which each is built when its time comes: no pause of seconds in between
BEHIND_S = 0.1  # at most so much is caught up by sending faster than the rate
LOOK_S = 0.2  # how long at most an end that was asked for waits
LATE_S = 1.0  # and then for answers to what was sent already


@dataclass(frozen=True)
class Plan:
    """How much, how fast, how long. `wait_s` is for answers after the last packet."""

    count: int
    rate: float
    seconds: float
    wait_s: float


@dataclass(frozen=True)
class Outcome:
    """How the sending went. `ended`: count, time, or stopped."""

    ended: str
    seconds: float
    missed: int


def packets(builder: Builder, target: Target, seed: int, count: int) -> Iterator[Made]:
    """The packets of a run: the same for the same seed."""
    # Traffic needs no cryptographic randomness, and a seed must give the same again.
    chance = Random(seed)  # noqa: S311
    return (builder(target, chance, number, number) for number in range(count))


class Run:
    """Sends what it is given by one wire and books what comes back."""

    def __init__(self, wire: Wire, target: Target, ledger: Ledger, stopped: Callable[[], bool]) -> None:
        self._wire = wire
        self._target = target
        self._ledger = ledger
        self._stopped = stopped
        self._web: Web | None = None

    def go(self, plan: Plan, made: Iterator[Made]) -> Outcome:
        """Send all of it, wait for answers, and say how it ended."""
        with ExitStack() as stack:
            if self._target.http_port:
                self._web = stack.enter_context(Web(self._target))
            stack.enter_context(_kept_port(self._target))
            ended, seconds = self._send(plan, made)
            self._await(min(plan.wait_s, LATE_S) if self._stopped() else plan.wait_s)
            return Outcome(ended, seconds, self._wire.missed())

    def _send(self, plan: Plan, made: Iterator[Made]) -> tuple[str, float]:
        spent, due = 0.0, time.monotonic()
        while True:
            began = time.monotonic()
            ready = list(islice(made, 1 if plan.rate <= SLOW else AHEAD))
            if not ready:
                return "count", spent
            if plan.rate > SLOW:  # building is no part of the time that sending takes
                began = due = time.monotonic()
            for one in ready:
                due = max(due, time.monotonic() - BEHIND_S)
                self._collect(due)
                if self._stopped() or spent + time.monotonic() - began > plan.seconds:
                    ended = "stopped" if self._stopped() else "time"
                    return ended, spent + time.monotonic() - began
                self._put(one)
                due += 1 / plan.rate
            spent += time.monotonic() - began

    def _put(self, one: Made) -> None:
        self._ledger.sent(one.seq, one.kind, time.time_ns(), one.frames, asks=one.asks)
        for frame in one.frames:
            self._wire.send(frame)
        if not one.frames and self._web:
            self._web.ask(one.seq)

    def _collect(self, until: float) -> None:
        """Book answers until a time, or until the end is asked for; at least those that are there."""
        while left := self._booked(until):
            if self._stopped():
                return
            self._wire.wait(min(left, LOOK_S))

    def _booked(self, until: float) -> float:
        """Book the answers that are there; the seconds that are left."""
        while got := self._wire.receive():
            found = answer(got[0], self._target.run)
            if found:
                self._ledger.answered(found.seq, got[1], refused=found.refused, kinds=found.kinds)
        while self._web and self._web.done:
            self._ledger.answered(*self._web.done.popleft())
        return max(0.0, until - time.monotonic())

    def _await(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := self._booked(deadline)) and self._ledger.waiting:
            self._wire.wait(min(left, 0.02))


def _kept_port(target: Target) -> socket.socket:
    """The port of answers to UDP, taken so that this kernel does not call it closed; nobody reads it."""
    family = socket.AF_INET if target.src.version == 4 else socket.AF_INET6
    kept = socket.socket(family, socket.SOCK_DGRAM)
    try:
        kept.bind(("", target.own_port))
    except OSError:
        kept.close()  # somebody has it: then it is open as well
    return kept
