# SPDX-License-Identifier: Apache-2.0
"""Snapshots to the collector, one an interval, while the settings ask for it. Libraries load when they do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from valkyrie.adapters.errors import StoreConfigurationError
from valkyrie.adapters.secrets import Secret, Secrets
from valkyrie.control.errors import InvalidInput
from valkyrie.control.finish import to_its_end
from valkyrie.control.telemetry.meters import ExportMeter
from valkyrie.control.telemetry.settings import OtlpSettings
from valkyrie.control.telemetry.snapshot import Snapshot

if TYPE_CHECKING:
    from valkyrie.control.telemetry.courier import Courier
    from valkyrie.control.telemetry.tracing import Tracing

log = logging.getLogger(__name__)

RETRY_S = 10.0  # after what a person must mend: a credential that is missing, a port in use
Headers = tuple[tuple[str, str], ...]


class Exporter:
    """`settings` are those in force, read again when `changed` is set; `instance` names the appliance."""

    def __init__(
        self,
        settings: Callable[[], OtlpSettings],
        secrets: Secrets,
        meter: ExportMeter,
        take: Callable[[], Awaitable[Snapshot]],
        instance: Callable[[], str],
        random: Callable[[int], bytes],
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._meter = meter
        self._take = take
        self._instance = instance
        self._random = random
        self._problem = ""  # why there is no courier
        self._by: OtlpSettings | None = None  # the settings that are worked by
        self._offered: Headers | None = None  # by a rotation of the credential
        self.changed = asyncio.Event()
        self.courier: Courier | None = None
        self.tracing: Tracing | None = None  # while traces are asked for

    def status(self) -> dict[str, Any]:
        """`state`: off, waiting for the first delivery by these settings, ok, or failing for `problem`."""
        fresh = self._by != self._settings()  # what is known is of those before
        delivery = None if self.courier is None or fresh else self.courier.delivery
        problem = ("" if fresh else self._problem) or ("" if delivery is None else delivery.problem)
        last = None if delivery is None else delivery.last
        if not self._settings().enabled:
            state = "off"
        elif problem:
            state = "failing"
        else:
            state = "waiting" if last is None else "ok"
        return {"state": state, "problem": problem, "last_delivery": last}

    async def run(self) -> None:
        """For ever. Ends within courier.END_S when cancelled."""
        while True:
            self.changed.clear()
            otlp = self._by = self._settings()
            self._problem = ""
            if not otlp.enabled:
                await self.changed.wait()
                continue
            try:
                headers = self._offered or await read_headers(self._secrets, otlp.headers_credential)
            except InvalidInput as error:
                log.error("telemetry is not sent: %s", error)  # noqa: TRY400 - no bug, so no traceback
                self._problem = str(error)
                await wait_for(self.changed, RETRY_S)
                continue
            await self._export(otlp, headers)

    async def _export(self, otlp: OtlpSettings, headers: Headers) -> None:
        """Until the settings change."""
        with contextlib.ExitStack() as stack:
            if otlp.headers_credential is not None:
                stack.callback(self._secrets.watch(otlp.headers_credential, self._renewed))
            courier = await asyncio.to_thread(_courier, otlp, headers, self._meter)
            self.courier = courier
            courier.start()
            try:
                if otlp.traces:
                    self.tracing = await asyncio.to_thread(_tracing, courier, self._random, self._instance())
                await self._feed(courier, otlp)
            finally:
                self.courier, self.tracing = None, None
                await to_its_end(asyncio.to_thread(courier.end))
                self._offered = None if self._settings() != otlp else self._offered

    async def _feed(self, courier: Courier, otlp: OtlpSettings) -> None:
        from valkyrie.control.telemetry.encode import metrics_data, resource_of  # noqa: PLC0415 - see _courier

        resource = resource_of(self._instance())
        while not self.changed.is_set():
            seen = await self._take()
            courier.give_metrics(await asyncio.to_thread(metrics_data, seen, resource))
            await wait_for(self.changed, otlp.interval_seconds)
            if self.changed.is_set() and self._settings() == otlp and self._offered is None:
                self.changed.clear()

    async def _renewed(self, secret: Secret) -> None:
        """The credential gets another value. Raises StoreConfigurationError for one that holds no headers."""
        try:
            self._offered = headers_of(secret)
        except InvalidInput as error:
            raise StoreConfigurationError(error.what, error.hint) from error
        self.changed.set()


async def read_headers(secrets: Secrets, name: str | None) -> Headers:
    """Those that the credential holds; none without one. Raises InvalidInput."""
    if name is None:
        return ()
    try:
        secret = await secrets.secret(name)
    except StoreConfigurationError as error:
        raise InvalidInput(error.what, error.hint, "headers_credential") from error
    return headers_of(secret)


def headers_of(secret: Secret) -> Headers:
    from valkyrie.control.telemetry.channel import parse_headers  # noqa: PLC0415 - only if it is used

    try:
        return parse_headers(secret.reveal().decode())
    except UnicodeDecodeError:
        raise InvalidInput("the credential with the headers is not text", "set it anew") from None


def _courier(otlp: OtlpSettings, headers: Headers, meter: ExportMeter) -> Courier:
    """In a thread: the libraries take a while to load."""
    from valkyrie.control.telemetry import encode  # noqa: F401, PLC0415 - so that the event loop need not
    from valkyrie.control.telemetry.channel import open_channel  # noqa: PLC0415
    from valkyrie.control.telemetry.courier import Courier  # noqa: PLC0415

    return Courier(lambda: open_channel(otlp, headers), meter, timeout_s=otlp.timeout_seconds, wall=time.time)


def _tracing(courier: Courier, random: Callable[[int], bytes], instance: str) -> Tracing:
    """In a thread, as above."""
    from valkyrie.control.telemetry.encode import resource_of  # noqa: PLC0415
    from valkyrie.control.telemetry.tracing import Tracing  # noqa: PLC0415

    return Tracing(courier.give_span, random, resource_of(instance))


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Until it is set, or so long. Not asyncio.wait_for: Python 3.11's can lose a cancellation."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
