# SPDX-License-Identifier: Apache-2.0
"""The operations of the appliance, by noun. The API is the only caller besides the daemon's own timers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from valkyrie.adapters.notify.message import Message
from valkyrie.control.alerts.alerts import Alerts
from valkyrie.control.alerts.look import look
from valkyrie.control.capture.captures import Captures
from valkyrie.control.config import Settings
from valkyrie.control.service.clock import RANDOM_BYTES, Clock
from valkyrie.control.service.core import Core
from valkyrie.control.service.credentials import Credentials
from valkyrie.control.service.drops import Drops
from valkyrie.control.service.engine import Engine
from valkyrie.control.service.events import Hub
from valkyrie.control.service.guards import Guards
from valkyrie.control.service.keeping import Keeping, NotKept
from valkyrie.control.service.limits import Limits
from valkyrie.control.service.migration import Migration
from valkyrie.control.service.nics import Nics
from valkyrie.control.service.notifications import Notifications
from valkyrie.control.service.policy import Policy
from valkyrie.control.service.stores import Stores
from valkyrie.control.service.talkers import Talkers
from valkyrie.control.service.views import Views
from valkyrie.control.state.store import State
from valkyrie.control.suggest.observations import Observations
from valkyrie.control.telemetry.meters import make_meters
from valkyrie.control.telemetry.runtime import Telemetry
from valkyrie.control.telemetry.snapshot import take

if TYPE_CHECKING:
    from valkyrie.control.standby import Standby

FIXED = ("state_dir", "socket", "bpffs", "group", "read_group")


class Service:
    """Everything that the API offers, over one state and one data plane. `keeping`, set before start(), may
    keep the state in a store; so does `standby`, which then is the same.
    """

    def __init__(self, settings: Settings, state: State, engine: Engine, clock: Clock) -> None:
        self.core = Core(settings, state, engine, clock)
        self.credentials = Credentials(self.core, RANDOM_BYTES)
        self.hub = Hub(clock)
        self.limits = Limits(self.core)
        self.guards = Guards(self.core)
        self.nics = Nics(self.core, self.hub.tell)
        self.policy = Policy(self.core)
        self.talkers = Talkers(lambda: clock.mono_ns() / 1e9, int.from_bytes(RANDOM_BYTES(8)))
        self.drops = Drops(self.core, self.hub, self.talkers)
        self.captures = Captures(self.core)
        self.observations = Observations(self.core)
        self.meters = make_meters(engine.occupancy, lambda: clock.mono_ns() / 1e9)
        self.keeping: Keeping = NotKept()
        self.standby: Standby | None = None
        self.large_looks = asyncio.Lock()
        self.stores = Stores(self.core, self.hub.tell, self.credentials.store)
        self.credentials.on_set.append(self.stores.try_again)
        self.telemetry = Telemetry(
            self.core, self.credentials.store, self.meters, lambda: take(self), RANDOM_BYTES
        )
        self.credentials.users.append(lambda: self.telemetry.in_force)
        self.notifications = Notifications(
            self.core, self.hub.tell, self.credentials.store, self.limits, self.guards
        )
        self.credentials.users.append(self.notifications.in_force)
        self.migration = Migration(self.core, self.credentials.store, self.hub.tell)
        self.alerts = Alerts(self.core, lambda restarted: look(self, restarted), self.hub.tell)
        self.alerts.submit_to(self._submit)
        self.hub.listen(self.alerts.hear)
        self.views = Views(self.core, self.nics, self.talkers, self.drops, self._kept)

    def _submit(self, message: Message) -> asyncio.Future[bool]:
        return self.notifications.dispatcher.submit(message)

    def _kept(self) -> dict[str, Any]:
        return self.keeping.status()

    async def start(self) -> None:
        """Put in force what the state says, and attach what should be attached."""
        self.hub.bind(asyncio.get_running_loop())
        await self.credentials.start()
        await self.keeping.prepare()
        await self.core.in_turn(self.core.start)
        await self.keeping.refill()
        await self.nics.expire()
        await self.nics.restore(strays=True)
        await self.core.in_turn(self.core.engine.finish)
        await self.core.in_turn(self.core.settle)

    async def sweep(self) -> None:
        """What time asks for, some seconds apart: expiry, clocks that were set, what failed before."""
        # NICs first: what follows writes, and a full disk must not keep a NIC unpoliced.
        if self.nics.troubled:
            await self.nics.restore()
        await self.core.in_turn(self.core.engine.finish)
        await self.core.in_turn(self.core.follow_clock)
        await self.guards.sweep()
        await self.core.in_turn(self.core.settle)

    async def reload(self, settings: Settings) -> list[str]:
        """Put settings in force that can change while running; those that cannot are named."""
        self.credentials.as_read = settings
        old, given = self.core.settings, self.core.given
        fixed = [name for name in FIXED if getattr(old, name) != getattr(settings, name)]
        if old.table.buckets != settings.table.buckets:
            fixed.append("table.buckets")
        if old.sync.enabled != settings.sync.enabled:
            fixed.append("sync.enabled")
        table = settings.table.model_copy(update={"buckets": old.table.buckets})
        sync = settings.sync.model_copy(update={"enabled": old.sync.enabled})
        kept = {name: getattr(old, name) for name in FIXED}
        wanted = settings.model_copy(update={**kept, "table": table, "sync": sync})

        def work() -> None:
            self.core.use(wanted)
            try:
                self.core.publish_again()
            except BaseException:
                self.core.use(given)
                raise

        await self.core.in_turn(work)
        self.renamed()
        self.telemetry.apply()
        await self.notifications.reload(wanted.notify)
        return fixed

    def renamed(self) -> None:
        """The settings of the stores may be others: those of a file, or the name by a takeover."""
        self.stores.reload(self.core.settings.store)

    async def close(self) -> None:
        """End the streams, tell the store, and end the changes under way. What is enforced stays in force."""
        self.hub.close()
        self.captures.close()
        await self.observations.close()
        await self.alerts.close()
        await self.keeping.close()
        await self.core.close()
