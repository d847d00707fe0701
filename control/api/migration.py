# SPDX-License-Identifier: Apache-2.0
"""The part of the API that is about moving to another store."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from valkyrie.control.api.models import Body
from valkyrie.control.api.route import Call, Route
from valkyrie.control.service.service import Service


class StartBody(Body):
    source: str = Field(max_length=20, description="the store in use: redis, valkey or embedded")
    target: str = Field(max_length=20, description="the one to move to; its settings say where it is")
    overwrite: bool = Field(False, description="delete what the target holds of this appliance")


class ValidateBody(Body):
    repair: bool = Field(False, description="bring the other store to what the one in use holds")


class ForceBody(Body):
    force: bool = Field(False, description="also where it is refused for the sake of safety")


async def status(service: Service, call: Call) -> Any:
    return service.migration.status()


async def start(service: Service, call: Call) -> Any:
    body = call.body
    return await service.migration.start(call.actor, body.source, body.target, overwrite=body.overwrite)


async def validate(service: Service, call: Call) -> Any:
    return await service.migration.ask(call.actor, "repair" if call.body.repair else "validate")


async def cutover(service: Service, call: Call) -> Any:
    return await service.migration.ask(call.actor, "cutover", force=call.body.force)


async def cleanup(service: Service, call: Call) -> Any:
    return await service.migration.ask(call.actor, "cleanup", force=call.body.force)


async def abort(service: Service, call: Call) -> Any:
    return await service.migration.ask(call.actor, "abort", force=call.body.force)


BASE = "/v1/store/migration"

MIGRATION_ROUTES = (
    Route("GET", BASE, "How far the migration to another store is, and what comes next", status),
    Route("POST", f"{BASE}/start", "Begin to move to another store", start, body=StartBody),
    Route("POST", f"{BASE}/validate", "Compare both stores, key by key", validate, body=ValidateBody),
    Route("POST", f"{BASE}/cutover", "Have the target decide", cutover, body=ForceBody),
    Route("POST", f"{BASE}/cleanup", "Empty the source, and end the migration", cleanup, body=ForceBody),
    Route("POST", f"{BASE}/abort", "Go back to the source, and empty the target", abort, body=ForceBody),
)
