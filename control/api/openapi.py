# SPDX-License-Identifier: Apache-2.0
"""OpenAPI 3.1, made from the route table and the models that check the bodies: it cannot tell otherwise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from valkyrie.control.api.route import STATUS, Route

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "what", "hint", "where"],
            "properties": {
                "code": {"type": "string", "enum": [*STATUS, "dataplane", "state", "error"]},
                "what": {"type": "string", "description": "what happened, and to what"},
                "hint": {"type": "string", "description": "what to do about it"},
                "where": {"type": "string", "description": "the word or field that is wrong"},
            },
        }
    },
}


def describe(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The OpenAPI document of the routes."""
    from pydantic.json_schema import models_json_schema  # noqa: PLC0415

    models = list(dict.fromkeys(route.body for route in routes if route.body))
    _, schemas = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Valkyrie",
            "version": version,
            "description": "HTTP over the Unix socket of valkyried; who calls is told by the kernel.",
        },
        "paths": paths,
        "components": {"schemas": {"Error": ERROR, **schemas.get("$defs", {})}},
    }


def _operation(route: Route) -> dict[str, Any]:
    in_path = [_parameter(name, "path", "") for name in re.findall(r"{(\w+)}", route.path)]
    in_query = [_parameter(name, "query", meaning) for name, meaning in route.query.items()]
    kind = "text/event-stream" if route.stream else "application/json"
    schema = {"type": "string"} if route.stream else {"type": "object"}
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "parameters": in_path + in_query,
        "responses": {
            "200": {"description": route.answer or "done", "content": {kind: {"schema": schema}}},
            "default": {
                "description": "refused or failed",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if route.body:
        body = {"$ref": f"#/components/schemas/{route.body.__name__}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _parameter(name: str, place: str, meaning: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "schema": {"type": "string"},
        **({"description": meaning} if meaning else {}),
    }
