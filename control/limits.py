# SPDX-License-Identifier: Apache-2.0
"""What people decide, as frozen models: limits, overrides, exempt prefixes, bans; together, Desired.

Texts are canonical once a model is made: two models are equal when they mean the same. Making one raises
InvalidInput whose `where` is the field; of pydantic's own complaints see document.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from valkyrie.control.cost import MAX_TAU, UNITS_A_NS, Cost, cost_of
from valkyrie.control.enums import Action, Measure
from valkyrie.control.errors import InvalidInput
from valkyrie.control.kept_matches import KeptMatches
from valkyrie.control.key import KeySpec, format_key, parse_key
from valkyrie.control.match import Match, format_match
from valkyrie.control.prefix import canonical_prefix
from valkyrie.control.units import (
    Rate,
    format_burst,
    format_duration,
    format_rate,
    parse_burst,
    parse_duration,
    parse_rate,
)

T = TypeVar("T")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
MEASURES = {"packets": Measure.PACKETS, "ip": Measure.IP_BYTES, "frame": Measure.FRAME_BYTES}
ACTIONS = {"drop": Action.DROP, "shadow": Action.SHADOW, "ban": Action.BAN}
MeasureWord = Literal["packets", "ip", "frame"]

_match_of = KeptMatches()
# An override's rate must not be parsed 100,000 times.
_rate_of = lru_cache(maxsize=4096)(parse_rate)
_cost_of = lru_cache(maxsize=4096)(cost_of)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Limit(_Model):
    """A named rule: packets that `match`, counted by `key`, at most `rate` with bursts of `burst`."""

    name: str
    match: str = ""
    key: str = "global"
    rate: str
    measure: MeasureWord = Field(default=None, validate_default=True)
    burst: str | None = None
    action: Literal["drop", "shadow", "ban"] = "drop"
    ban_for: str | None = Field(default=None, validate_default=True)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return _field("name", check_name, name)

    @field_validator("match")
    @classmethod
    def _canonical_match(cls, text: str) -> str:
        return _field("match", lambda: format_match(_match_of(text)))

    @field_validator("key")
    @classmethod
    def _canonical_key(cls, text: str) -> str:
        return _field("key", lambda: format_key(parse_key(text)))

    @field_validator("key")
    @classmethod
    def _match_fits_key(cls, text: str, info: ValidationInfo) -> str:
        if text == "id" and info.data.get("match"):
            what = "a limit with key id is for calls alone: no packet has such a key"
            raise InvalidInput(what, "leave match out, or choose a key that packets have, as src", "match")
        return text

    @field_validator("rate")
    @classmethod
    def _canonical_rate(cls, text: str) -> str:
        return _field("rate", canonical_rate, text)

    @field_validator("action")
    @classmethod
    def _action_fits_key(cls, action: str, info: ValidationInfo) -> str:
        if action == "ban" and info.data.get("key") == "id":
            raise InvalidInput(
                "a limit with key id cannot ban: its keys are no addresses", "action drop", "action"
            )
        return action

    @field_validator("measure", mode="before")
    @classmethod
    def _settle_measure(cls, word: object, info: ValidationInfo) -> object:
        if "rate" not in info.data or (word is not None and word not in MEASURES):
            return word
        if word is None:
            usual = _rate_of(info.data["rate"]).measure
            return next(name for name, value in MEASURES.items() if value is usual)
        _field("measure", _rate_of, info.data["rate"], MEASURES[str(word)])
        return word

    @field_validator("burst")
    @classmethod
    def _canonical_burst(cls, text: str | None, info: ValidationInfo) -> str | None:
        if "measure" not in info.data:
            return text
        rate = _rate_of(info.data["rate"], MEASURES[info.data["measure"]])
        return _field("burst", canonical_burst, text, rate)

    @field_validator("ban_for")
    @classmethod
    def _canonical_ban(cls, text: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("action") == "ban" and text is None:
            raise InvalidInput("action ban needs a time", "say how long, as ban_for 10m", "ban_for")
        if info.data.get("action") != "ban" and text is not None:
            raise InvalidInput("ban_for without action ban", "choose action ban, or leave it out", "ban_for")
        return None if text is None else _field("ban_for", _canonical_ban_time, text)

    def model_post_init(self, _: object) -> None:
        _ = self.matcher  # while it is known: it was parsed to be checked

    @cached_property
    def matcher(self) -> Match:
        return _match_of(self.match)

    @cached_property
    def key_spec(self) -> KeySpec:
        return parse_key(self.key)

    @cached_property
    def rate_value(self) -> Rate:
        return _rate_of(self.rate, MEASURES[self.measure])

    @cached_property
    def cost(self) -> Cost:
        return cost_for(self.rate_value, self.burst)


class Override(_Model):
    """Another rate for one prefix of a limit's sources (or destinations, if the key has no source)."""

    limit: str
    prefix: str
    rate: str
    burst: str | None = None

    @field_validator("prefix")
    @classmethod
    def _canonical_prefix(cls, text: str) -> str:
        return _field("prefix", canonical_prefix, text)

    @field_validator("rate")
    @classmethod
    def _canonical_rate(cls, text: str) -> str:
        return _field("rate", canonical_rate, text)

    @field_validator("burst")
    @classmethod
    def _canonical_burst(cls, text: str | None, info: ValidationInfo) -> str | None:
        if "rate" not in info.data:
            return text
        return _field("burst", canonical_burst, text, _rate_of(info.data["rate"]))

    def cost(self, measure: Measure) -> Cost:
        """Raises InvalidInput when the limit counts packets and this bytes, or the other way round."""
        return cost_for(_rate_of(self.rate, measure), self.burst)


class _Guard(_Model):
    prefix: str
    until: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # seconds since 1970; None: for ever
    note: str = Field(default="", max_length=256)

    @field_validator("prefix")
    @classmethod
    def _canonical_prefix(cls, text: str) -> str:
        return _field("prefix", canonical_prefix, text)

    @field_validator("until")
    @classmethod
    def _whole_milliseconds(cls, until: float | None) -> float | None:
        return None if until is None else round(until, 3)  # so that any text of it means the same


class Exempt(_Guard):
    """A prefix whose packets always pass."""


class Ban(_Guard):
    """A prefix whose packets never pass."""


@dataclass(frozen=True)
class Desired:
    """The whole policy. Limits are sorted by name, overrides by limit and prefix, the others by prefix."""

    limits: tuple[Limit, ...] = ()
    overrides: tuple[Override, ...] = ()
    exempts: tuple[Exempt, ...] = ()
    bans: tuple[Ban, ...] = ()
    protects: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        limits: Iterable[Limit] = (),
        overrides: Iterable[Override] = (),
        exempts: Iterable[Exempt] = (),
        bans: Iterable[Ban] = (),
        protects: Iterable[str] = (),
    ) -> Desired:
        """Sorted; raises InvalidInput for what is there twice and for overrides of a limit that is not."""
        desired = cls(
            _unique("limit", limits, lambda limit: limit.name),
            _unique("override", overrides, lambda override: (override.limit, override.prefix)),
            _unique("exempt", exempts, lambda entry: entry.prefix),
            _unique("ban", bans, lambda entry: entry.prefix),
            tuple(sorted({canonical_prefix(prefix) for prefix in protects})),
        )
        names = {limit.name for limit in desired.limits}
        for override in desired.overrides:
            if override.limit not in names:
                what = f"an override for limit {override.limit!r}, which does not exist"
                raise InvalidInput(what, "set the limit first", "limit")
        return desired


def check_name(name: str) -> str:
    """A limit's name, or InvalidInput."""
    if not NAME.fullmatch(name):
        hint = "1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit, as dns-amp"
        raise InvalidInput(f"{name[:64]!r} is no name for a limit", hint, name[:64])
    return name


@lru_cache(maxsize=4096)  # a hundred thousand overrides have some hundred rates, and share their texts
def canonical_rate(text: str) -> str:
    """The one way to write a rate."""
    return format_rate(_rate_of(text))


@lru_cache(maxsize=4096)
def canonical_burst(text: str | None, rate: Rate) -> str | None:
    """The one way to write a burst at this rate; checks that bucket and rate fit together."""
    cost_for(rate, text)
    return None if text is None else format_burst(parse_burst(text, rate.measure), rate.measure)


def _canonical_ban_time(text: str) -> str:
    """A ban is a bucket, and lasts no longer than one takes to refill."""
    lasts = parse_duration(text)
    if lasts * UNITS_A_NS >= MAX_TAU:
        most = format_duration(MAX_TAU // UNITS_A_NS, 1)
        raise InvalidInput(
            f"a ban of {text} is out of range", f"at most {most}; `ban add` bans for good", text
        )
    return format_duration(lasts)


def cost_for(rate: Rate, burst: str | None) -> Cost:
    """cost_of for a burst as text."""
    return _cost_of(rate, None if burst is None else parse_burst(burst, rate.measure))


def _field(name: str, function: Callable[..., T], *values: object) -> T:
    """Call, and tell complaints as those of the field."""
    try:
        return function(*values)
    except InvalidInput as error:
        raise error.at(name) from None


def _unique(noun: str, entries: Iterable[T], key: Callable[[T], object]) -> tuple[T, ...]:
    named = [(key(entry), entry) for entry in entries]
    named.sort(key=lambda pair: pair[0])  # type: ignore[arg-type,return-value]
    for (name, _), (following, _) in pairwise(named):
        if name == following:
            what = " ".join(name) if isinstance(name, tuple) else str(name)
            raise InvalidInput(f"{noun} {what} is there twice", "keep one of them", what)
    return tuple(entry for _, entry in named)
