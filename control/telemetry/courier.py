# SPDX-License-Identifier: Apache-2.0
"""The thread that exports metrics and spans, and what waits for it. Nobody waits for the thread.

Of metrics only the newest batch waits: counters are sums, so the next one says all that a lost one did. Of
spans at most MOST_SPANS wait; what comes then is dropped and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.trace import ReadableSpan

from valkyrie.control.telemetry.channel import Channel, ExportError, Payload, Signal
from valkyrie.control.telemetry.meters import ExportMeter

log = logging.getLogger(__name__)

MOST_SPANS = 2048
BATCH = 512
GATHER_S = 1.0  # spans come in groups: so long the first waits for the others
FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 60.0  # after failures in a row, doubled each time
END_S = 1.0  # for what waits when the daemon ends


@dataclass(frozen=True, slots=True)
class Delivery:
    """How it stands: `problem` of the last try, empty after a good one; wall seconds of the last good one."""

    problem: str = ""
    last: float | None = None
    tries: int = 0


class Courier:
    """`connect` opens the channel, in the thread, until it could."""

    def __init__(
        self,
        connect: Callable[[], Channel],
        meter: ExportMeter,
        *,
        timeout_s: float,
        wall: Callable[[], float],
    ) -> None:
        self._connect = connect
        self._meter = meter
        self._timeout_s = timeout_s
        self._wall = wall
        self._wake = threading.Condition()
        self._metrics: MetricsData | None = None
        self._spans: deque[ReadableSpan] = deque()
        self._spans_due = 0.0
        self._held_until = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._ending = False
        self.delivery = Delivery()
        # A daemon thread: a resolver or a collector that hangs must not keep the process.
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> None:
        """Deliver from now on, until `end`."""
        self._thread.start()

    def give_metrics(self, data: MetricsData) -> None:
        with self._wake:
            if self._metrics is not None:
                self._meter.note("metrics", "dropped")
            self._metrics = data
            self._wake.notify()

    def give_span(self, span: ReadableSpan) -> None:
        """From any thread; some microseconds."""
        with self._wake:
            if len(self._spans) >= MOST_SPANS:
                self._meter.note("traces", "dropped")
                return
            if not self._spans:
                self._spans_due = time.monotonic() + GATHER_S
                self._wake.notify()
            self._spans.append(span)

    def end(self, seconds: float = END_S) -> None:
        """Try once to bring what waits, and come back after `seconds` whatever became of it."""
        with self._wake:
            self._ending = True
            self._timeout_s = min(self._timeout_s, seconds)
            self._wake.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        channel: Channel | None = None
        try:
            while self._something():
                channel = self._deliver(channel)
                if self._ending:
                    return
        except Exception:
            log.exception("the exporter of telemetry failed")
            self.delivery = Delivery("a bug: the log has its traceback", self.delivery.last)
        finally:
            if channel is not None:
                channel.close()

    def _something(self) -> bool:
        """Wait until something is due; False: the end has come, and it is no use to try."""
        with self._wake:
            while not self._ending:
                now = time.monotonic()
                due = self._held_until if self._metrics is not None else float("inf")
                if self._spans:
                    due = min(due, max(self._held_until, self._spans_due))
                if due <= now:
                    return True
                self._wake.wait(None if due == float("inf") else due - now)
            return not self.delivery.problem and (self._metrics is not None or bool(self._spans))

    def _deliver(self, channel: Channel | None) -> Channel | None:
        """All that waits, until the first failure. The channel, None if it must be opened anew."""
        try:
            channel = channel or self._connect()
            self._deliver_metrics(channel)
            self._deliver_spans(channel)
        except ExportError as error:
            self._failed(error)
        else:
            self._pause_s = FIRST_PAUSE_S
            self._held_until = 0.0
            if self.delivery.problem:
                log.info("telemetry reaches the collector again")
            self.delivery = Delivery("", self._wall(), self.delivery.tries + 1)
        return channel

    def _deliver_metrics(self, channel: Channel) -> None:
        with self._wake:
            data, self._metrics = self._metrics, None
        if data is None:
            return
        try:
            self._send(channel, "metrics", data, 1)
        except ExportError as error:
            self._keep(data, error)
            raise

    def _keep(self, data: MetricsData, error: ExportError) -> None:
        """To be sent again after the pause, unless a newer batch came meanwhile or it is refused for good."""
        with self._wake:
            if not error.permanent and self._metrics is None:
                self._metrics = data

    def _deliver_spans(self, channel: Channel) -> None:
        while True:
            with self._wake:
                batch = [self._spans.popleft() for _ in range(min(BATCH, len(self._spans)))]
            if not batch:
                return
            try:
                self._send(channel, "traces", batch, len(batch))
            except ExportError as error:
                self._put_back(batch, error)
                raise

    def _put_back(self, batch: list[ReadableSpan], error: ExportError) -> None:
        with self._wake:
            room = 0 if error.permanent else MOST_SPANS - len(self._spans)
            kept = batch[-room:] if room else []
            self._spans.extendleft(reversed(kept))
            self._meter.note("traces", "dropped", len(batch) - len(kept))

    def _send(self, channel: Channel, signal: Signal, payload: Payload, count: int) -> None:
        try:
            channel.send(signal, payload, self._timeout_s)
        except ExportError:
            self._meter.note(signal, "failed", count)
            raise
        log.debug("the collector took a batch of %s", signal)
        self._meter.note(signal, "delivered", count)

    def _failed(self, error: ExportError) -> None:
        wait = self._pause_s if error.wait_s is None else error.wait_s
        self._pause_s = min(self._pause_s * 2, LAST_PAUSE_S)
        if error.permanent:  # nothing of it is sent again: the next batch has its own chance
            wait = self._pause_s = FIRST_PAUSE_S
        self._held_until = time.monotonic() + wait
        if str(error) != self.delivery.problem:
            log.warning("telemetry does not reach the collector: %s", error)
        self.delivery = Delivery(str(error), self.delivery.last, self.delivery.tries + 1)
