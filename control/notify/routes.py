# SPDX-License-Identifier: Apache-2.0
"""Which adapters a message goes to. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from valkyrie.adapters.notify.message import Message, Severity
from valkyrie.adapters.notify.settings import NotifySettings, Route

ANY = "*"


def leads(route: Route, message: Message) -> bool:
    if message.severity < Severity[route.severity.upper()]:
        return False
    tags = message.tags
    return all(name in tags and _has(tags[name], value) for name, value in route.tags.items())


def _has(told: str, wanted: str) -> bool:
    """A message about several limits has them with commas between; ANY: about very many."""
    return wanted in (ANY, told) or told == ANY or wanted in told.split(",")


def targets(message: Message, routes: Iterable[Route]) -> list[str]:
    """Names of adapters, each once, in the order of the routes."""
    found = (name for route in routes if leads(route, message) for name in route.to)
    return list(dict.fromkeys(found))


def routes_of(settings: NotifySettings) -> tuple[Route, ...]:
    """Those of the settings; without any, warnings and above go everywhere."""
    if settings.routes or not settings.adapters:
        return settings.routes
    return (Route(to=tuple(settings.adapters)),)
