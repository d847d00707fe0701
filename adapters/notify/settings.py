# SPDX-License-Identifier: Apache-2.0
"""The `notify:` section of valkyrie.yaml: ways to reach people by name, and which messages take which."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from valkyrie.control.errors import InvalidInput

if TYPE_CHECKING:
    from valkyrie.adapters.notify.kinds import AdapterBase

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
MAX_ADAPTERS = 32
MAX_ROUTES = 128
MAX_TAGS = 16

SeverityWord: TypeAlias = Literal["info", "warning", "error", "critical"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _adapter(value: Any) -> AdapterBase:
    from valkyrie.adapters.notify.kinds import checked_adapter  # noqa: PLC0415 - see there

    try:
        return checked_adapter(value)
    except InvalidInput as error:
        raise ValueError(str(error)) from None


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError("is no name: up to 32 lower-case letters, digits, dots, hyphens, underscores")
    return text


AdapterName = Annotated[str, AfterValidator(_name)]
Tags = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=256)]],
    Field(max_length=MAX_TAGS),
]


class Route(_Section):
    """Messages of this severity and above, with all these tags."""

    severity: SeverityWord = Field("warning", description="the least")
    tags: Tags = Field({}, description="tags that a message must have; the value `*`: any")
    to: Annotated[tuple[AdapterName, ...], BeforeValidator(_listed)] = Field(
        min_length=1, max_length=MAX_ADAPTERS, description="names of adapters"
    )


class NotifySettings(_Section):
    """A message goes once to each adapter that any route leads to."""

    adapters: dict[AdapterName, Annotated[Any, BeforeValidator(_adapter)]] = Field(
        {}, max_length=MAX_ADAPTERS, description="ways to reach people, by name"
    )
    routes: tuple[Route, ...] = Field(
        (), max_length=MAX_ROUTES, description="none: every adapter gets warnings and above"
    )
    queue_messages: int = Field(1000, ge=1, le=100_000, description="that wait for one adapter, at most")
    give_up_seconds: float = Field(
        86_400, ge=1, le=30 * 86_400, description="a message that could not be delivered for so long is dead"
    )

    @field_validator("routes")
    @classmethod
    def _lead_somewhere(cls, routes: tuple[Route, ...], info: Any) -> tuple[Route, ...]:
        known = info.data.get("adapters")
        for route in routes:
            for name in route.to:
                if known is not None and name not in known:
                    there = ", ".join(known) or "none"
                    raise ValueError(
                        f"a route leads to {name}, which `adapters` does not have; there: {there}"
                    )
        return routes
