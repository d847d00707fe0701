# SPDX-License-Identifier: Apache-2.0
"""The API, version 1: every operation in one table."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from starlette.responses import StreamingResponse

from valkyrie.control.api import models
from valkyrie.control.api.alerts import ALERT_ROUTES
from valkyrie.control.api.capture import CAPTURE_ROUTES
from valkyrie.control.api.credentials import CREDENTIAL_ROUTES
from valkyrie.control.api.migration import MIGRATION_ROUTES
from valkyrie.control.api.notify import NOTIFY_ROUTES
from valkyrie.control.api.observe import OBSERVE_ROUTES
from valkyrie.control.api.route import LARGE_BODY, Call, Route
from valkyrie.control.api.standby import STANDBY_ROUTES
from valkyrie.control.api.stores import STORE_ROUTES
from valkyrie.control.api.telemetry import TELEMETRY_ROUTES
from valkyrie.control.service.drops import KEPT
from valkyrie.control.service.events import Follower
from valkyrie.control.service.service import Service
from valkyrie.control.version import installed

MOST_BUCKETS = 100_000
MOST_AUDIT = 10_000
MOST_TALKERS = 1000


async def status(service: Service, call: Call) -> Any:
    return {
        **await service.views.status(),
        "alerts": service.alerts.status(),
        "notifications": service.notifications.brief(),
    }


async def doctor(service: Service, call: Call) -> Any:
    from valkyrie.control.dataplane.doctor import examine  # noqa: PLC0415 - looked at seldom

    matches = [limit.matcher for limit in service.core.world.desired.limits]
    vlans = any(match.vlan or match.untagged for match in matches)
    checks = await asyncio.to_thread(examine, service.core.settings.bpffs, vlans=vlans)
    return {"checks": [asdict(check) for check in checks]}


async def openapi(service: Service, call: Call) -> Any:
    from valkyrie.control.api.openapi import describe  # noqa: PLC0415 - looked at seldom

    return describe(ROUTES, installed())


async def list_limits(service: Service, call: Call) -> Any:
    return service.limits.list()


async def show_limit(service: Service, call: Call) -> Any:
    return service.limits.show(call.path["name"])


async def put_limit(service: Service, call: Call) -> Any:
    return await service.limits.put(call.actor, call.path["name"], call.body.model_dump())


async def delete_limit(service: Service, call: Call) -> Any:
    return await service.limits.delete(call.actor, call.path["name"])


async def list_overrides(service: Service, call: Call) -> Any:
    return service.limits.overrides(call.path["name"])


async def put_overrides(service: Service, call: Call) -> Any:
    entries = [{"prefix": one.prefix, "rate": one.rate, "burst": one.burst} for one in call.body.overrides]
    return await service.limits.put_overrides(call.actor, call.path["name"], entries)


async def delete_override(service: Service, call: Call) -> Any:
    return await service.limits.delete_override(call.actor, call.path["name"], call.needed("prefix"))


async def apply(service: Service, call: Call) -> Any:
    return await service.policy.apply(call.actor, call.body.document)


async def compare(service: Service, call: Call) -> Any:
    return await service.policy.compare(call.body.document)


async def export(service: Service, call: Call) -> Any:
    return await service.policy.export()


async def explain(service: Service, call: Call) -> Any:
    return await service.views.explain(call.body.packet)


async def list_exempts(service: Service, call: Call) -> Any:
    return await service.guards.list("exempt")


async def put_exempt(service: Service, call: Call) -> Any:
    body = call.body
    return await service.guards.put(call.actor, "exempt", body.prefix, body.lasting, body.note)


async def delete_exempt(service: Service, call: Call) -> Any:
    return await service.guards.delete(call.actor, "exempt", call.needed("prefix"))


async def list_bans(service: Service, call: Call) -> Any:
    return await service.guards.list("ban")


async def put_ban(service: Service, call: Call) -> Any:
    body = call.body
    return await service.guards.put(call.actor, "ban", body.prefix, body.lasting, body.note)


async def delete_ban(service: Service, call: Call) -> Any:
    return await service.guards.delete(call.actor, "ban", call.needed("prefix"))


async def list_buckets(service: Service, call: Call) -> Any:
    return await service.views.buckets(
        call.query.get("limit"),
        call.query.get("key"),
        live=call.query.get("live", "1") != "0",
        count=call.number("count", 100, MOST_BUCKETS),
    )


async def show_bucket(service: Service, call: Call) -> Any:
    return await service.views.bucket(call.path["limit"], call.query.get("key"))


async def reset_buckets(service: Service, call: Call) -> Any:
    return await service.views.reset(call.actor, call.body.limit, call.body.key)


async def attach(service: Service, call: Call) -> Any:
    body = call.body
    return await service.nics.attach(
        call.actor,
        call.path["nic"],
        mode=body.mode,
        confirm=body.confirm,
        replacing=body.replace,
        protect=body.protect,
    )


async def confirm(service: Service, call: Call) -> Any:
    return await service.nics.confirm(call.actor, call.path["nic"])


async def detach(service: Service, call: Call) -> Any:
    return await service.nics.detach(call.actor, call.path["nic"])


async def top(service: Service, call: Call) -> Any:
    return await service.views.top(call.number("count", 20, MOST_TALKERS), call.query.get("limit"))


async def audit(service: Service, call: Call) -> Any:
    return await service.views.audit(call.number("count", 50, MOST_AUDIT))


async def events(service: Service, call: Call) -> Any:
    follower = service.hub.join()
    return StreamingResponse(_stream(service, follower), media_type="text/event-stream")


async def last_events(service: Service, call: Call) -> Any:
    return service.views.last_events(call.number("count", 100, KEPT))


async def _stream(service: Service, follower: Follower) -> AsyncIterator[bytes]:
    try:
        async for event in follower:
            yield b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"
    finally:
        service.hub.leave(follower)


_PREFIX = {"prefix": "which one, as 203.0.113.0/24"}
_LIMIT = "the limit, with the number of its overrides and its counters"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/status", "What runs, what is attached, and all counters", status),
    Route("GET", "/v1/doctor", "Whether the host has what it takes, and what to mend", doctor),
    Route("GET", "/v1/openapi.json", "This description", openapi),
    Route("GET", "/v1/limits", "All limits with their counters", list_limits),
    Route("GET", "/v1/limits/{name}", "One limit", show_limit, answer=_LIMIT),
    Route(
        "PUT", "/v1/limits/{name}", "Create a limit, or replace it as a whole", put_limit,
        body=models.LimitBody, answer=_LIMIT, limit=LARGE_BODY,
    ),
    Route("DELETE", "/v1/limits/{name}", "Delete a limit with its overrides", delete_limit),
    Route("GET", "/v1/limits/{name}/overrides", "The overrides of a limit", list_overrides),
    Route(
        "PUT", "/v1/limits/{name}/overrides", "Add overrides, or replace those of the same prefixes",
        put_overrides, body=models.OverridesBody, limit=LARGE_BODY,
    ),
    Route("DELETE", "/v1/limits/{name}/overrides", "Delete one override", delete_override, query=_PREFIX),
    Route(
        "POST", "/v1/apply", "Make the policy that of a document; what it does not name is deleted", apply,
        body=models.ApplyBody, answer="the difference", limit=LARGE_BODY,
    ),
    Route(
        "POST", "/v1/diff", "What applying a document would change; changes nothing", compare,
        body=models.ApplyBody, answer="the difference", limit=LARGE_BODY, looks=True,
    ),
    Route("GET", "/v1/export", "The policy as a document", export),
    Route(
        "POST", "/v1/explain", "Ask the loaded program about a packet; takes no tokens", explain,
        body=models.ExplainBody, looks=True,
    ),
    Route("GET", "/v1/exempt", "Prefixes that always pass", list_exempts),
    Route("PUT", "/v1/exempt", "Let a prefix always pass", put_exempt, body=models.GuardBody),
    Route("DELETE", "/v1/exempt", "Subject a prefix to limits again", delete_exempt, query=_PREFIX),
    Route("GET", "/v1/ban", "Prefixes that never pass", list_bans),
    Route("PUT", "/v1/ban", "Ban a prefix", put_ban, body=models.GuardBody),
    Route("DELETE", "/v1/ban", "Lift a ban", delete_ban, query=_PREFIX),
    Route(
        "GET", "/v1/buckets", "Buckets, the emptiest first", list_buckets,
        query={
            "limit": "of this limit alone",
            "key": "of this key alone",
            "live": "0: full ones too",
            "count": f"at most so many, up to {MOST_BUCKETS}",
        },
    ),
    Route(
        "GET", "/v1/buckets/{limit}", "One bucket", show_bucket,
        query={"key": "whose; absent for global limits"},
    ),
    Route("POST", "/v1/buckets/reset", "Make buckets full again", reset_buckets, body=models.ResetBody),
    Route("POST", "/v1/nics/{nic}/attach", "Police a NIC", attach, body=models.AttachBody),
    Route("POST", "/v1/nics/{nic}/confirm", "Keep an attachment that is on trial", confirm),
    Route("DELETE", "/v1/nics/{nic}", "Stop policing a NIC", detach),
    Route(
        "GET", "/v1/top", "Rates of the limits, and who is dropped most", top,
        query={
            "count": f"so many talkers, up to {MOST_TALKERS}",
            "limit": "talkers of this limit or reason alone",
        },
    ),
    Route("GET", "/v1/events", "Drops and notes as they happen", events, stream=True),
    Route(
        "GET", "/v1/events/last", "The last drops and notes, the oldest first", last_events,
        query={"count": f"at most so many, up to {KEPT}"},
    ),
    Route(
        "GET", "/v1/audit", "Who changed what, the newest first", audit,
        query={"count": f"at most so many, up to {MOST_AUDIT}"},
    ),
    *CAPTURE_ROUTES,
    *OBSERVE_ROUTES,
    *CREDENTIAL_ROUTES,
    *STORE_ROUTES,
    *MIGRATION_ROUTES,
    *STANDBY_ROUTES,
    *ALERT_ROUTES,
    *NOTIFY_ROUTES,
    *TELEMETRY_ROUTES,
)  # fmt: skip
