# SPDX-License-Identifier: Apache-2.0
"""Operations on notifications, and what may be commanded by messages. Changes are audited."""

from __future__ import annotations

import asyncio
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from valkyrie.adapters.notify.settings import NotifySettings
from valkyrie.adapters.secrets import Secrets
from valkyrie.control.audit import Actor
from valkyrie.control.config import Settings
from valkyrie.control.notes import Tell
from valkyrie.control.service.core import Core
from valkyrie.control.service.guards import Guards
from valkyrie.control.service.limits import Limits

if TYPE_CHECKING:
    from valkyrie.control.notify.dispatcher import Dispatcher

NOBODY = 65534


class Notifications:
    """`dispatcher` is what alerts submit their messages to; it is made when it is first asked for, so that
    packets need not wait for its code.
    """

    def __init__(self, core: Core, tell: Tell, secrets: Secrets, limits: Limits, guards: Guards) -> None:
        self._core = core
        self._tell = tell
        self._secrets = secrets
        self._limits = limits
        self._guards = guards

    @cached_property
    def dispatcher(self) -> Dispatcher:
        from valkyrie.control.notify.dispatcher import Dispatcher, Surroundings  # noqa: PLC0415

        core = self._core
        around = Surroundings(core.settings.state_dir, self._secrets, core.node, core.clock.wall, self._tell)
        made = Dispatcher(core.settings.notify, around)
        made.operations = {"limits-set": self._set_limit, "ban": self._ban}
        return made

    async def run(self) -> None:
        """Deliver, until cancelled."""
        await self.dispatcher.run()

    async def reload(self, settings: NotifySettings) -> None:
        await self.dispatcher.reload(settings)

    def in_force(self) -> Settings:
        """All settings, with the adapters added at run time among them: those name credentials too."""
        notify = NotifySettings.model_construct(adapters=self.dispatcher.adapters)
        return self._core.settings.model_copy(update={"notify": notify})

    def status(self) -> dict[str, Any]:
        return self.dispatcher.status()

    def brief(self) -> dict[str, Any]:
        return self.dispatcher.brief()

    async def add(
        self, actor: Actor, name: str, fields: dict[str, Any], severity: str, tags: dict[str, str]
    ) -> dict[str, Any]:
        """Raises InvalidInput, Conflict, StateError."""
        answer = await self.dispatcher.add(name, fields, severity, tags)
        await self._note(
            actor, "notify.add", name, {"severity": severity, "tags": tags, **answer["settings"]}
        )
        return answer

    async def remove(self, actor: Actor, name: str) -> dict[str, Any]:
        """Raises NotFound, Conflict, StateError."""
        answer = await self.dispatcher.remove(name)
        await self._note(actor, "notify.remove", name, {"dropped": answer["dropped"]})
        return answer

    async def retry(self, actor: Actor, name: str) -> dict[str, Any]:
        """Raises NotFound."""
        answer = await self.dispatcher.retry(name)
        await self._note(actor, "notify.retry", name, {"revived": answer["revived"]})
        return answer

    async def test(self, actor: Actor, name: str) -> dict[str, Any]:
        """Raises NotFound."""
        answer = await self.dispatcher.test(name)
        await self._note(actor, "notify.test", name, {"ok": answer["ok"]})
        return answer

    async def _note(self, actor: Actor, action: str, target: str, detail: dict[str, Any]) -> None:
        await self._core.in_turn(lambda: self._core.note(actor, action, target, detail))

    async def _set_limit(self, adapter: str, arguments: dict[str, Any]) -> Any:
        from valkyrie.control.api.models import LimitBody  # noqa: PLC0415 - seldom; the API's own checks

        name, fields = arguments.get("name"), {k: v for k, v in arguments.items() if k != "name"}
        body = await asyncio.to_thread(_checked, LimitBody, fields)
        return await self._limits.put(_actor(adapter), str(name)[:256], body.model_dump())

    async def _ban(self, adapter: str, arguments: dict[str, Any]) -> Any:
        from valkyrie.control.api.models import GuardBody  # noqa: PLC0415

        body = await asyncio.to_thread(_checked, GuardBody, arguments)
        fields = body.model_dump()
        return await self._guards.put(
            _actor(adapter), "ban", fields["prefix"], fields["lasting"], fields["note"]
        )


def _actor(adapter: str) -> Actor:
    """Who commands by a broker is no user of this host."""
    return Actor(NOBODY, f"mqtt:{adapter}", 0)


def _checked(model: type[BaseModel], fields: dict[str, Any]) -> BaseModel:
    from valkyrie.control.api.route import parse_body  # noqa: PLC0415 - needs the API's libraries

    return parse_body(model, json.dumps(fields).encode())
