# SPDX-License-Identifier: Apache-2.0
"""The `alerts:` section of valkyrie.yaml."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from valkyrie.control.alerts.figures import parse_seconds
from valkyrie.control.alerts.rules import Rule
from valkyrie.control.errors import InvalidInput

MAX_RULES = 256
MAX_WAIT_S = 7 * 86400


def _lasting(text: str) -> str:
    try:
        seconds = parse_seconds(text)
    except InvalidInput as error:
        raise ValueError(str(error)) from error
    if seconds > MAX_WAIT_S:
        raise ValueError("is longer than a week")
    return text


Lasting = Annotated[str, Field(max_length=64), AfterValidator(_lasting)]


class AlertSettings(BaseModel):
    """When alerts are told, and the rules. Those added at run time live in the state."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    shipped: bool = Field(True, description="the rules that need no configuration")
    group_wait: Lasting = Field("10s", description="alerts of one rule within this time are one message")
    repeat: Lasting = Field("4h", description="how often what goes on firing is told again; 0s: never")
    most_an_hour: int = Field(12, ge=1, le=3600, description="messages of one rule in an hour")
    history: int = Field(10_000, ge=100, le=1_000_000, description="newest entries that are kept")
    rules: tuple[Rule, ...] = Field((), max_length=MAX_RULES)

    @field_validator("rules")
    @classmethod
    def _once(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        twice = [name for name, count in Counter(rule.name for rule in rules).items() if count > 1]
        if twice:
            raise ValueError(f"two rules are called {twice[0]}: give each a name of its own")
        return rules

    @cached_property
    def group_wait_s(self) -> float:
        return parse_seconds(self.group_wait)

    @cached_property
    def repeat_s(self) -> float:
        return parse_seconds(self.repeat)
