# SPDX-License-Identifier: Apache-2.0
"""What each kind of adapter may be told. Loaded when there is an adapter, for models take time to build."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from valkyrie.adapters.hosts import on_this_host
from valkyrie.control.errors import InvalidInput

MIN_KEY_BYTES = 16
TOPIC = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
SECRET = re.compile(r"pass|secret|token|api_?key|^key$|pwd|webhook")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, populate_by_name=True)


def checked_url(url: str) -> str:
    """An http(s) URL without user, password or query. The complaint never quotes it."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise ValueError("is not a URL: as https://host/path") from None
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(
            "has a user, a query or a fragment in it: secrets belong to `valkyrie-ctl creds set`"
        )
    return url


def private_url(url: str) -> str:
    """A URL that secrets go to: encrypted, unless it is on this host."""
    checked_url(url)
    parts = urlsplit(url)
    if parts.scheme != "https" and not on_this_host(parts.hostname or ""):
        raise ValueError("must begin with https://, for a secret goes there")
    return url.rstrip("/")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _address(text: str) -> str:
    if not re.fullmatch(r"[^\s<>@,;:\"\x00-\x1f\x7f]{1,64}@[A-Za-z0-9.\[\]:-]{1,255}", text):
        raise ValueError("is not an address of mail: as ops@example.net")
    return text


def _topic(text: str) -> str:
    if not TOPIC.fullmatch(text):
        raise ValueError("is no topic: letters, digits, dots, hyphens, underscores between slashes")
    return text


Credential = Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Url = Annotated[str, Field(max_length=1024), AfterValidator(checked_url)]
PrivateUrl = Annotated[str, Field(max_length=1024), AfterValidator(private_url)]
Mail = Annotated[str, Field(max_length=320), AfterValidator(_address)]
Mails = Annotated[tuple[Mail, ...], BeforeValidator(_listed), Field(min_length=1, max_length=32)]
Phone = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{5,14}$")]


class NotifyTls(_Section):
    """Files are read again when they change."""

    ca: Path | None = Field(None, description="PEM of the authorities to trust; none: the system's")
    certificate: Path | None = Field(None, description="PEM chain that this client shows (mTLS)")
    private_key: Path | None = Field(None, description="PEM of its key; mode 0600")

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key go together")
        return self


class AdapterBase(_Section):
    """What every kind has."""

    timeout_seconds: float = Field(10.0, ge=0.1, le=60, description="of one delivery")

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The credentials that it needs."""
        found = (getattr(self, name) for name in type(self).model_fields if "credential" in name)
        return tuple(name for name in found if name is not None)


class ConsoleSettings(AdapterBase):
    """Lines on standard error, which systemd puts into the journal."""

    kind: Literal["console"]


class WebhookSettings(AdapterBase):
    """JSON by POST, signed when there is a key."""

    kind: Literal["webhook"]
    url: Url | None = Field(None, description="where to POST")
    url_credential: Credential | None = Field(None, description="the URL, when it is a secret itself")
    credential: Credential | None = Field(
        None, description="key of the signature, 16 bytes or more; none: not signed"
    )
    tls: NotifyTls = NotifyTls()

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if (self.url is None) == (self.url_credential is None):
            raise ValueError("needs either url or url_credential")
        return self


class SlackSettings(AdapterBase):
    """An incoming webhook, whose URL is the secret; or with `channel` chat.postMessage with a bot's token."""

    kind: Literal["slack"]
    credential: Credential = Field(description="the incoming webhook's URL, or with `channel` a bot's token")
    channel: str | None = Field(
        None, max_length=80, pattern=r"^[#A-Za-z0-9._-]+$", description="by chat.postMessage, as C024BE91L"
    )
    url: PrivateUrl = Field("https://slack.com", description="with `channel`: where the API is")
    tls: NotifyTls = NotifyTls()


class SendGridSettings(AdapterBase):
    """Mail by SendGrid's Web API, version 3."""

    kind: Literal["sendgrid"]
    credential: Credential = Field(description="API key with the permission Mail Send")
    sender: Mail = Field(alias="from", description="a verified sender")
    to: Mails = Field(description="who gets it; one address or a list")
    url: PrivateUrl = Field("https://api.sendgrid.com", description="where the API is")
    tls: NotifyTls = NotifyTls()


class TwilioSettings(AdapterBase):
    """One SMS to one number; several people are several adapters, so that none gets it twice."""

    kind: Literal["twilio"]
    account: str = Field(pattern=r"^AC[0-9a-fA-F]{32}$", description="the account's SID")
    api_key: str | None = Field(
        None,
        pattern=r"^SK[0-9a-fA-F]{32}$",
        description="SID of an API key; none: the account's token is used",
    )
    credential: Credential = Field(description="the account's auth token, or the API key's secret")
    sender: str = Field(
        alias="from", pattern=r"^(\+[1-9][0-9]{5,14}|MG[0-9a-fA-F]{32}|[A-Za-z0-9 ]{1,11}|[0-9]{3,8})$",
        description="a number, a sender's name, or the SID of a messaging service",
    )  # fmt: skip
    to: Phone = Field(description="the number, as +15550100")
    max_chars: int = Field(320, ge=40, le=1600, description="longer texts are cut; an SMS part has 70 to 160")
    url: PrivateUrl = Field("https://api.twilio.com", description="where the API is")
    tls: NotifyTls = NotifyTls()


class SmtpSettings(AdapterBase):
    """Mail by a server of your own."""

    kind: Literal["smtp"]
    host: str = Field(max_length=253, pattern=r"^[A-Za-z0-9.:-]+$", description="the server")
    port: int | None = Field(None, ge=1, le=65535, description="none: 587, 465 with `tls`, 25 with `none`")
    encryption: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="`none` only without a password, or on this host"
    )
    username: str | None = Field(None, max_length=320, description="none: no login")
    credential: Credential | None = Field(None, description="the password")
    sender: Mail = Field(alias="from", description="the sender")
    to: Mails = Field(description="who gets it; one address or a list")
    tls: NotifyTls = NotifyTls()

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if (self.username is None) != (self.credential is None):
            raise ValueError("username and credential go together")
        if self.encryption == "none" and self.credential is not None and not on_this_host(self.host):
            raise ValueError("would send the password in the clear: set encryption to starttls or tls")
        return self


class MqttSettings(AdapterBase):
    """Messages, the state of each rule of alerts (retained), and this node's presence (last will)."""

    kind: Literal["mqtt"]
    host: str = Field(max_length=253, pattern=r"^[A-Za-z0-9.:-]+$", description="the broker")
    port: int | None = Field(None, ge=1, le=65535, description="none: 8883, 1883 without TLS")
    encryption: Literal["tls", "none"] = Field(
        "tls", description="`none` only without a password, or on this host"
    )
    username: str | None = Field(None, max_length=128, description="none: anonymous, or by certificate")
    credential: Credential | None = Field(None, description="the password")
    client_id: str | None = Field(
        None, max_length=64, pattern=r"^[A-Za-z0-9._-]+$", description="none: valkyrie-NODE-NAME"
    )
    prefix: Annotated[str, AfterValidator(_topic)] = Field(
        "valkyrie", max_length=128, description="topics begin with it"
    )
    keepalive_seconds: int = Field(30, ge=5, le=600, description="the broker notes a death after 1.5 of it")
    command_credential: Credential | None = Field(
        None, description="key of signed commands, 16 bytes or more; none: no commands are taken"
    )
    tls: NotifyTls = NotifyTls()

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if (self.username is None) != (self.credential is None):
            raise ValueError("username and credential go together")
        if self.encryption == "none" and self.credential is not None and not on_this_host(self.host):
            raise ValueError("would send the password in the clear: set encryption to tls")
        return self


AdapterSettings: TypeAlias = Annotated[
    ConsoleSettings
    | WebhookSettings
    | SlackSettings
    | SendGridSettings
    | TwilioSettings
    | SmtpSettings
    | MqttSettings,
    Field(discriminator="kind"),
]
KINDS: dict[str, type[AdapterBase]] = {
    "console": ConsoleSettings,
    "webhook": WebhookSettings,
    "slack": SlackSettings,
    "sendgrid": SendGridSettings,
    "twilio": TwilioSettings,
    "smtp": SmtpSettings,
    "mqtt": MqttSettings,
}
ADAPTER: TypeAdapter[AdapterBase] = TypeAdapter(AdapterSettings)


def checked_adapter(fields: Any) -> AdapterBase:
    """The settings of one adapter. Raises InvalidInput, which never shows a value."""
    kind = fields.get("kind") if isinstance(fields, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidInput("that is no kind of adapter", f"known: {', '.join(KINDS)}", "kind")
    try:
        return ADAPTER.validate_python(dict(fields))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        # A secret in the wrong place is worth more words than the credential that is then missing.
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
        where = ".".join(str(part) for part in first["loc"][1:])
        known = ", ".join(words_of(KINDS[kind]))
        if first["type"] == "extra_forbidden":
            hint = f"known to {kind}: {known}"
            if SECRET.search(where.lower()):
                hint = (
                    "secrets do not stand here: run `valkyrie-ctl creds set NAME`, and name it as credential"
                )
            raise InvalidInput(f"unknown setting {where[:40]}", hint, where[:40]) from None
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"{where or kind}: {message}", f"settings of {kind}: {known}", where) from None


def words_of(model: type[AdapterBase]) -> list[str]:
    """The settings of a kind as they are written."""
    return [field.alias or name for name, field in model.model_fields.items() if name != "kind"]
