# SPDX-License-Identifier: Apache-2.0
"""Telemetry as the daemon runs it: what is sent and served, looked at and changed without a restart.

What `valkyrie-ctl telemetry` sets is kept in telemetry.json of the state's folder and stands above the
settings until `telemetry reset`. The level of the log is not kept: a forgotten `debug` ends with the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from valkyrie.adapters.secrets import Secrets
from valkyrie.control.audit import Actor
from valkyrie.control.config import Settings
from valkyrie.control.credentials.files import read_private, write_private
from valkyrie.control.errors import InvalidInput, ValkyrieError
from valkyrie.control.service.core import Core
from valkyrie.control.telemetry import logs
from valkyrie.control.telemetry.export import RETRY_S, Exporter, read_headers, wait_for
from valkyrie.control.telemetry.meters import Meters
from valkyrie.control.telemetry.settings import OtlpSettings, TelemetrySettings
from valkyrie.control.telemetry.snapshot import Snapshot

if TYPE_CHECKING:
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)

FILE = "telemetry.json"
MAX_FILE = 64 * 1024
Fields = dict[str, Any]


class Telemetry:
    """`take` gives a snapshot. Use from the event loop's thread."""

    def __init__(
        self,
        core: Core,
        secrets: Secrets,
        meters: Meters,
        take: Callable[[], Awaitable[Snapshot]],
        random: Callable[[int], bytes],
    ) -> None:
        self._core = core
        self._secrets = secrets
        self._meters = meters
        self._take = take
        self._path = core.settings.state_dir / FILE
        self._set = self._read()
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._exporter = Exporter(
            lambda: self.settings.otlp, secrets, meters.exports, take, self._instance, random
        )
        self._tried: str | None = None
        self._listening: str | None = None
        self._listen_problem = ""

    def _read(self) -> Fields:
        """What was set earlier, while the daemon ran. Trouble is logged: no packet waits for this."""
        try:
            raw = read_private(self._path, MAX_FILE, judge=False)
            found = {} if raw is None else json.loads(raw)
            merged(self._core.settings.telemetry, found)
        except (ValkyrieError, ValueError, TypeError, AttributeError) as error:
            log.error("%s is not used: %s", self._path, error)  # noqa: TRY400 - no bug, so no traceback
            return {}
        return dict(found)

    def _instance(self) -> str:
        return self._core.node

    @property
    def settings(self) -> TelemetrySettings:
        """In force."""
        try:
            return merged(self._core.settings.telemetry, self._set)
        except InvalidInput:  # what was set does not fit the settings as they were read again
            return self._core.settings.telemetry

    @property
    def in_force(self) -> Settings:
        """All settings, with these among them."""
        return self._core.settings.model_copy(update={"telemetry": self.settings})

    def operation(self, name: str, traceparent: str | None) -> AbstractContextManager[Span | None]:
        """A trace of one control operation, if traces are asked for."""
        tracing = self._exporter.tracing
        return contextlib.nullcontext() if tracing is None else tracing.operation(name, traceparent)

    def status(self) -> dict[str, Any]:
        settings = self.settings
        return {
            **self._exporter.status(),
            **settings.otlp.model_dump(mode="json"),
            "prometheus": {
                "listen": settings.prometheus.listen,
                "listening": self._listening if self._listening == settings.prometheus.listen else None,
                "problem": self._listen_problem if self._tried == settings.prometheus.listen else "",
            },
            "exports": {
                one.signal: {"delivered": one.delivered, "failed": one.failed, "dropped": one.dropped}
                for one in self._meters.exports.figures()
            },
            "set": sorted(self._set),
            "log": logs.level(),
            "log_format": self._core.settings.log_format,
        }

    async def change(self, actor: Actor, fields: Fields) -> dict[str, Any]:
        """Set some, the rest stays; empty text takes a setting away. Raises InvalidInput, StateError."""
        level = fields.get("log")
        given = {name: None if value == "" else value for name, value in fields.items() if name != "log"}
        async with self._turn:  # or of two at once the later would undo the earlier
            wanted = {**self._set, **given}
            settings = merged(self._core.settings.telemetry, wanted)
            if settings.otlp.enabled:
                await self._can(settings.otlp)
            await self._core.in_turn(lambda: self._write(actor, "telemetry.set", wanted, fields))
        if level is not None:
            logs.set_level(level)
        self.apply()
        return self.status()

    async def reset(self, actor: Actor) -> dict[str, Any]:
        """What the settings say, from now on. Raises StateError."""
        async with self._turn:
            await self._core.in_turn(lambda: self._write(actor, "telemetry.reset", {}, {}))
        logs.set_level(self._core.settings.log)
        self.apply()
        return self.status()

    def _write(self, actor: Actor, action: str, wanted: Fields, detail: Fields) -> None:
        """In the thread of changes. First the note: what cannot be written down is not done."""
        self._core.note(actor, action, "", detail)
        if wanted != self._set:
            write_private(self._path, json.dumps(wanted).encode())
            self._set = wanted

    async def _can(self, otlp: OtlpSettings) -> None:
        """Raises InvalidInput for what cannot work, whatever the collector says."""
        from valkyrie.control.telemetry.channel import has_grpc  # noqa: PLC0415 - only if it is used

        if otlp.protocol == "grpc" and not has_grpc():
            raise InvalidInput(
                "gRPC is not installed", "pip install valkyrie[grpc], or use --protocol http", "protocol"
            )
        await read_headers(self._secrets, otlp.headers_credential)

    def apply(self) -> None:
        """The settings may be others: look."""
        self._changed.set()
        self._exporter.changed.set()

    async def run(self) -> None:
        """For ever: send and serve what the settings in force ask for."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._exporter.run())
            both.create_task(self._serve())

    async def _serve(self) -> None:
        """The TCP port for scrapers, opened and closed as the settings change."""
        from valkyrie.control.telemetry.scrape import Scraper  # noqa: PLC0415 - packets come before it

        while True:
            self._changed.clear()
            listen = self._tried = self.settings.prometheus.listen
            self._listen_problem = ""
            if listen is None:
                await self._changed.wait()
                continue
            scraper = Scraper(self.text)
            try:
                await scraper.open(listen)
                self._listening = listen
                while self.settings.prometheus.listen == listen:
                    await self._changed.wait()
                    self._changed.clear()
            except ValkyrieError as error:
                log.error("metrics are not served: %s", error)  # noqa: TRY400 - no bug, so no traceback
                self._listen_problem = str(error)
                await wait_for(self._changed, RETRY_S)
            finally:
                self._listening = None
                await scraper.close()

    async def text(self) -> bytes:
        """The metrics for Prometheus."""
        from valkyrie.control.telemetry.prometheus import text  # noqa: PLC0415 - only when somebody scrapes

        seen = await self._take()
        return await asyncio.to_thread(text, seen)


def merged(settings: TelemetrySettings, given: Fields) -> TelemetrySettings:
    """The settings with what was set while the daemon runs. Raises InvalidInput naming the field."""
    otlp = {name: value for name, value in given.items() if name != "prometheus_listen"}
    prometheus = {"listen": given["prometheus_listen"]} if "prometheus_listen" in given else {}
    whole = {
        "otlp": {**settings.otlp.model_dump(), **otlp},
        "prometheus": {**settings.prometheus.model_dump(), **prometheus},
    }
    try:
        return TelemetrySettings.model_validate(whole)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = "prometheus_listen" if first["loc"][0] == "prometheus" else str(first["loc"][-1])
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"{field}: {message}", "valkyrie-ctl telemetry set --help", field) from error
