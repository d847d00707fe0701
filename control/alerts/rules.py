# SPDX-License-Identifier: Apache-2.0
"""A rule, as valkyrie.yaml, the API and the state hold it; and the rules that need no configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from valkyrie.adapters.notify.message import Severity
from valkyrie.control.alerts.figures import PARSE, parse_per_second, parse_seconds
from valkyrie.control.alerts.kinds import KINDS, Kind, SeverityWord, When
from valkyrie.control.errors import InvalidInput
from valkyrie.control.notes import NOTES

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
TAG = re.compile(r"[a-z][a-z0-9_-]{0,31}")
OWN_TAGS = ("rule", "when", "node", "severity", "limit", "nic", "credential", "store", "source", "event")
MAX_TAGS = 16
MAX_TAG_VALUE = 128
MAX_LASTING_S = 7 * 86400
LEAST_CLEAR_S = 1.0
ANY = "*"

WATCHED = tuple(kind for kind in NOTES if kind != "alert")  # alerts do not hear themselves

Text = Annotated[str, Field(max_length=64)]


@dataclass(frozen=True, slots=True)
class Terms:
    """A rule in numbers: it fires after `lasts` seconds above `above`, and is over after `clear_after`
    seconds at or below `clear_below`.
    """

    above: float
    at_least: float
    lasts: float
    clear_below: float
    clear_after: float


class RuleError(ValueError):
    """What pydantic passes on, with the field that is wrong in `cause`."""

    def __init__(self, cause: InvalidInput) -> None:
        super().__init__(f"{cause.where}: {cause}" if cause.where else str(cause))
        self.cause = cause


class RuleBody(BaseModel):
    """A rule without its name. Texts that are left out are those of the kind (kinds.py)."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, populate_by_name=True)

    when: When = Field(description="what is watched")
    limit: Text | None = Field(None, description="which limit; absent: each")
    nic: Text | None = Field(None, description="which interface; absent: each")
    credential: Text | None = Field(None, description="which credential; absent: each")
    event: Text | None = Field(None, description="which kind of note")
    above: Text | None = Field(None, description="as 1000/s, 20% or 5m")
    at_least: Text | None = Field(None, description="less traffic than this is not judged, as 10/s")
    lasts: Text | None = Field(None, alias="for", description="how long without a break, as 1m")
    clear_below: Text | None = Field(None, description="to be over; absent: as `above`")
    clear_after: Text | None = Field(None, description="how long at or below, as 5m")
    severity: SeverityWord | None = Field(None, description="`info`, `warning`, `error` or `critical`")
    tags: Mapping[str, str] = Field(
        default_factory=dict, max_length=MAX_TAGS, description="for routes and silences, as `team: net`"
    )
    note: str = Field("", max_length=512, description="for whoever is called: what to do")
    enabled: bool = Field(True, description="`false`: it watches nothing")


class Rule(RuleBody):
    """What to watch, and when to call."""

    name: str = Field(max_length=63, description="as web-drops")

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        try:
            self._check()
        except InvalidInput as error:
            raise RuleError(error) from error
        return self

    def _check(self) -> None:
        """Raises InvalidInput naming the field."""
        check_name(self.name)
        _check_tags(self.tags)
        kind = self.kind
        for field in ("limit", "nic", "credential", "event"):
            given = getattr(self, field)
            if given is not None and field != kind.subject:
                raise InvalidInput(f"`{field}` has no place in a rule of {self.when}", "leave it out", field)
        if kind.subject == "event" and self.event in (None, "", "drop", "alert"):
            raise InvalidInput(
                "which kind of note? (`drop` and `alert` are none)", "as `event: link`", "event"
            )
        if self.event is not None and self.event not in NOTES:
            raise InvalidInput(
                f"there are no notes of the kind {self.event[:40]!r}", f"one of {', '.join(WATCHED)}", "event"
            )
        if kind.moment and self.lasts is not None:
            raise InvalidInput(f"{self.when} is a moment: it has no `for`", "leave it out", "for")
        if kind.at_least is None and self.at_least is not None:
            raise InvalidInput(
                f"`at_least` has no place in a rule of {self.when}", "leave it out", "at_least"
            )
        _check_terms(self.terms)

    @property
    def kind(self) -> Kind:
        return KINDS[self.when]

    @property
    def which(self) -> str:
        """The one subject that is watched, or ANY."""
        named = getattr(self, self.kind.subject, None) if self.kind.subject else None
        return named or ANY

    @property
    def level(self) -> Severity:
        return Severity[(self.severity or self.kind.severity).upper()]

    @cached_property
    def terms(self) -> Terms:
        """Raises InvalidInput naming the field."""
        kind, parse = self.kind, PARSE[self.kind.unit]
        if kind.unit == "fact":
            for field in ("above", "clear_below"):
                if getattr(self, field) is not None:
                    raise InvalidInput(f"{self.when} has no figure", f"leave `{field}` out", field)
            above = clear_below = 0.0
        else:
            text = self.above or kind.above
            if text is None:
                raise InvalidInput(f"above what is {self.when} to be?", "as `above: 1000/s`", "above")
            above = _parsed("above", parse, text)
            clear_below = above
            if self.clear_below is not None:
                clear_below = _parsed("clear_below", parse, self.clear_below)
        return Terms(
            above,
            _parsed("at_least", parse_per_second, self.at_least or kind.at_least or "1/h"),
            _parsed("for", parse_seconds, self.lasts or kind.lasts),
            clear_below,
            _parsed("clear_after", parse_seconds, self.clear_after or kind.clear_after),
        )

    def shown(self) -> dict[str, Any]:
        """As it is stored and told, with nothing that was left out."""
        return self.model_dump(by_alias=True, exclude_defaults=True, mode="json")


def made(name: str, fields: Mapping[str, Any]) -> Rule:
    """The rule. Raises InvalidInput naming the field."""
    try:
        return Rule.model_validate({**fields, "name": name})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, RuleError):
            raise cause.cause from error
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(
            f"{where}: {first['msg']}", "docs/alerts.md tells what rules say", where
        ) from error


def _parsed(field: str, parse: Any, text: str) -> float:
    try:
        return float(parse(text))
    except InvalidInput as error:
        raise error.at(field) from error


def _check_terms(terms: Terms) -> None:
    if terms.clear_below > terms.above:
        raise InvalidInput("clear_below is more than above", "as much or less", "clear_below")
    for field, seconds in (("for", terms.lasts), ("clear_after", terms.clear_after)):
        if seconds > MAX_LASTING_S:
            raise InvalidInput(f"{field} is longer than a week", "at most 7d", field)
    if terms.clear_after < LEAST_CLEAR_S:
        raise InvalidInput("clear_after is less than a second", "as 1m: else it would flap", "clear_after")


def check_name(name: str) -> None:
    """Raises InvalidInput."""
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:80]!r} is no name of a rule", "small letters, digits, `-`, `_` and `.`, up to 63", "name"
        )


def _check_tags(tags: Mapping[str, str]) -> None:
    for tag, value in tags.items():
        if not TAG.fullmatch(tag) or tag in OWN_TAGS:
            raise InvalidInput(f"{tag[:40]!r} is no tag of your own", "as team=network", "tags")
        if not value or len(value) > MAX_TAG_VALUE or not value.isprintable():
            raise InvalidInput(
                f"tag {tag} has no printable value", f"1 to {MAX_TAG_VALUE} characters", "tags"
            )


# On without any configuration: what nobody wants to learn from his customers.
SHIPPED: tuple[Rule, ...] = tuple(
    Rule(name=when, when=when)
    for when in (
        "table-full",
        "table-evicting",
        "nic-detached",
        "nic-down",
        "store-switched",
        "store-none",
        "breaker-open",
        "sync-lag",
        "daemon-restarted",
        "events-lost",
    )
)
