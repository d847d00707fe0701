# SPDX-License-Identifier: Apache-2.0
"""Bodies that the API takes. Bounds stand here; what words mean is checked by the limits themselves."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

TEXT = 4096
MANY = 100_000


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class LimitBody(Body):
    """A limit without its name, which stands in the path."""

    match: str = Field("", max_length=8 << 20, description="which packets; empty: all")
    key: str = Field(max_length=256, description="what gets its own bucket, as src/24 or global")
    rate: str = Field(max_length=64, description="as 1000/s, 50mbit/s, 2.5MB/s, 10/h")
    burst: str | None = Field(None, max_length=64, description="as 2000 or 64KB; absent: one second's worth")
    action: Literal["drop", "shadow", "ban"] = "drop"
    ban_for: str | None = Field(None, max_length=64, description="with action ban: how long, as 10m")
    measure: Literal["packets", "ip", "frame"] | None = Field(
        None, description="what a token is; absent: by the rate"
    )


class OverrideBody(Body):
    prefix: str = Field(max_length=64)
    rate: str = Field(max_length=64)
    burst: str | None = Field(None, max_length=64)


class OverridesBody(Body):
    """Added to the limit's overrides; those for the same prefix are replaced."""

    overrides: list[OverrideBody] = Field(max_length=MANY)


class ApplyBody(Body):
    """The whole policy as export writes it: what it does not name is deleted."""

    document: dict[str, Any]


class ExplainBody(Body):
    packet: str = Field(max_length=TEXT, description="as: src 198.51.100.7 proto tcp dport 443 syn")


class GuardBody(Body):
    """An exempt or a ban."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, populate_by_name=True)

    prefix: str = Field(max_length=64)
    lasting: str | None = Field(
        None, alias="for", max_length=64, description="how long, as 10m; absent: for ever"
    )
    note: str = Field("", max_length=256)


class AttachBody(Body):
    mode: Literal["auto", "native", "generic"] = "auto"
    confirm: str | None = Field(None, max_length=64, description="detach after this time unless confirmed")
    replace: bool = Field(default=False, description="replace somebody else's XDP program")
    protect: list[str] = Field(
        default_factory=list, max_length=64, description="never drop packets from here"
    )


class ResetBody(Body):
    limit: str = Field(max_length=63)
    key: str | None = Field(None, max_length=256, description="absent: all buckets of the limit")
