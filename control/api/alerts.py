# SPDX-License-Identifier: Apache-2.0
"""The part of the API that is about alerts."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from valkyrie.control.alerts.rules import RuleBody
from valkyrie.control.api.models import Body
from valkyrie.control.api.route import Call, Route
from valkyrie.control.errors import InvalidInput
from valkyrie.control.service.service import Service

MOST_HISTORY = 10_000
TEST = {
    "name": "of the rule with this name; or:",
    "when": "of a rule that is not there: what is watched",
    "limit": "which limit",
    "nic": "which interface",
    "credential": "which credential",
    "event": "which kind of note",
    "above": "as 1000/s, 20% or 5m",
    "at_least": "less traffic than this is not judged",
}


class SilenceBody(Body):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, populate_by_name=True)

    match: str = Field(max_length=192, description="a rule's name, a tag as limit=web, or * for all")
    lasting: str = Field(alias="for", max_length=64, description="how long, as 2h")
    why: str = Field("", max_length=256)


async def list_alerts(service: Service, call: Call) -> Any:
    return await service.alerts.list()


async def alert_history(service: Service, call: Call) -> Any:
    return await service.alerts.history(call.number("count", 50, MOST_HISTORY))


async def alert_rules(service: Service, call: Call) -> Any:
    return await service.alerts.rules()


async def put_alert_rule(service: Service, call: Call) -> Any:
    fields = call.body.model_dump(by_alias=True, exclude_unset=True)
    return await service.alerts.add(call.actor, call.path["name"], fields)


async def delete_alert_rule(service: Service, call: Call) -> Any:
    return await service.alerts.remove(call.actor, call.path["name"])


async def test_alert(service: Service, call: Call) -> Any:
    fields = dict(call.query)
    name = fields.pop("name", None)
    if (name is None) == (not fields):
        raise InvalidInput("which rule?", "give its name, or `when` and what goes with it", "name")
    return service.alerts.test(name, fields)


async def put_silence(service: Service, call: Call) -> Any:
    body = call.body
    return await service.alerts.silence(call.actor, body.match, body.lasting, body.why)


async def delete_silence(service: Service, call: Call) -> Any:
    return await service.alerts.unsilence(call.actor, call.needed("match"))


ALERT_ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/alerts", "Alerts that fire or wait, and silences", list_alerts),
    Route(
        "GET", "/v1/alerts/history", "Alerts that fired and were over, the newest first", alert_history,
        query={"count": f"at most so many, up to {MOST_HISTORY}"},
    ),
    Route("GET", "/v1/alerts/rules", "All rules, and what is wrong with them", alert_rules),
    Route(
        "PUT", "/v1/alerts/rules/{name}", "Add an alert rule, or replace the one added under that name",
        put_alert_rule, body=RuleBody, answer="the rule, with all that it leaves to its kind",
    ),
    Route("DELETE", "/v1/alerts/rules/{name}", "Remove an alert rule that was added", delete_alert_rule),
    Route("GET", "/v1/alerts/test", "What an alert rule would say now", test_alert, query=TEST),
    Route("PUT", "/v1/alerts/silences", "Silence alerts for a while", put_silence, body=SilenceBody),
    Route(
        "DELETE", "/v1/alerts/silences", "End a silence", delete_silence,
        query={"match": "which one, as it was given"},
    ),
)  # fmt: skip
