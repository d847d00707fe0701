# SPDX-License-Identifier: Apache-2.0
"""The API's operations on credentials: values go in by bodies, which nothing logs, and never come out."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SecretStr

from valkyrie.control.api.models import Body
from valkyrie.control.api.route import Call, Route
from valkyrie.control.credentials.words import MAX_VALUE_BYTES
from valkyrie.control.service.service import Service


class CredentialBody(Body):
    """Examples would be copied: there are none."""

    value: SecretStr = Field(
        min_length=1, max_length=MAX_VALUE_BYTES, description="the password or key; UTF-8, 1 to 4096 bytes"
    )

    def bare(self) -> bytes:
        return self.value.get_secret_value().encode()


async def list_credentials(service: Service, call: Call) -> Any:
    return service.credentials.listing()


async def set_credential(service: Service, call: Call) -> Any:
    return await service.credentials.put(call.actor, call.path["name"], call.body.bare())


async def rotate_credential(service: Service, call: Call) -> Any:
    return await service.credentials.rotate(call.actor, call.path["name"], call.body.bare())


async def delete_credential(service: Service, call: Call) -> Any:
    force = call.query.get("force", "0") != "0"
    return await service.credentials.delete(call.actor, call.path["name"], force=force)


async def rekey(service: Service, call: Call) -> Any:
    return await service.credentials.rekey(call.actor)


async def encrypt(service: Service, call: Call) -> Any:
    return await service.credentials.encrypt(call.actor, call.body.bare())


CREDENTIAL_ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/creds", "Names, versions and users of credentials, no values", list_credentials),
    Route(
        "PUT", "/v1/creds/{name}", "Make a credential, or replace it untried", set_credential,
        body=CredentialBody, answer="its version, and what stores say that refuse it",
    ),
    Route(
        "POST", "/v1/creds/{name}/rotate", "Replace a credential once all stores took the new value",
        rotate_credential, body=CredentialBody,
    ),
    Route(
        "DELETE", "/v1/creds/{name}", "Delete a credential", delete_credential,
        query={"force": "1: also while the settings name it"},
    ),
    Route("POST", "/v1/creds/rekey", "Encrypt all credentials with a new master key", rekey),
    Route(
        "POST", "/v1/creds/encrypt", "Turn a value into text for `password_encrypted`", encrypt,
        body=CredentialBody,
    ),
)  # fmt: skip
