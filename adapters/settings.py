# SPDX-License-Identifier: Apache-2.0
"""The `store:` and `sync:` sections of valkyrie.yaml. Passwords are credentials, named by `credential`."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from valkyrie.adapters.errors import StoreConfigurationError
from valkyrie.adapters.resp.address import SENTINEL_PORT, Target, parse_endpoint, parse_url
from valkyrie.control.credentials.words import NAME

Backend = Literal["redis", "valkey", "yggdrasil", "embedded"]
APPLIANCE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
SECRET_PARAMETER = re.compile(r"(pass|pwd|secret|token|auth)\w*=", re.IGNORECASE)
ENCRYPTED = re.compile(r"valkyrie1:[0-9a-f]{16}:[A-Za-z0-9_=-]+")
SCHEMES = {
    "redis": ("redis", "rediss", "unix"),
    "valkey": ("valkey", "valkeys", "redis", "rediss", "unix"),
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _no_secret(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Its message would quote the URL, and what may stand in it.
        raise ValueError("is not a URL: as redis://host:6379") from None
    del port
    if parts.password is not None or SECRET_PARAMETER.search(parts.query):
        raise ValueError(
            "has a password in it: take it out, run `valkyrie-ctl creds set NAME`, and write "
            "`credential: NAME` beside it"
        )
    return url


def _encrypted(text: str) -> str:
    if not ENCRYPTED.fullmatch(text):
        raise ValueError(
            "is not what `valkyrie-ctl creds encrypt` prints: a bare password does not stand here"
        )
    return text


def _node(node: str) -> str:
    if "@" in node:
        raise ValueError("is host:port, without user or password: write `credential: NAME` beside `nodes`")
    try:
        parse_endpoint(node, SENTINEL_PORT)
    except StoreConfigurationError:
        raise ValueError("is not host:port: as sentinel-1:26379") from None
    return node


def _name(name: str) -> str:
    if not NAME.fullmatch(name):  # a password that stands in the name's place must not be told
        raise ValueError(
            "is no name of a credential: the password goes to `valkyrie-ctl creds set NAME`, and NAME (up to "
            "63 lower-case letters, digits, dots, hyphens, underscores) stands here"
        )
    return name


def _parsed(url: str) -> Target:
    try:
        return parse_url(url)
    except StoreConfigurationError as error:
        raise ValueError(str(error)) from None


def _check_file(path: Path, *, private: bool) -> None:
    """Raises ValueError for a file that cannot be used, and for a private one that others can read."""
    try:
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            file.read(1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    if private and mode & 0o077:
        raise ValueError(f"others can read {path} (mode {mode:04o}): run `chmod 600 {path}`")


CHECK_FILES = {"check_files": True}
"""Context of a validation by who will use the files, and may read them."""

Url = Annotated[str, Field(max_length=1024), AfterValidator(_no_secret)]
CredentialName = Annotated[str, AfterValidator(_name)]


class TlsSettings(_Section):
    """Files are read again when they change. Host names are checked, but for a Unix socket."""

    ca: Path | None = Field(None, description="PEM of the authorities to trust; none: the system's")
    certificate: Path | None = Field(None, description="PEM chain that this client shows (mTLS)")
    private_key: Path | None = Field(None, description="PEM of its key; mode 0600")
    server_name: str | None = Field(None, description="the name to check, if not the URL's host")

    @field_validator("ca", "certificate", "private_key")
    @classmethod
    def _usable(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is not None and info.context and info.context.get("check_files"):
            _check_file(path, private=info.field_name == "private_key")
        return path

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key go together")
        return self


class SentinelSettings(_Section):
    """Sentinels are asked where the primary is; the URL's host is then not used."""

    master: str = Field(min_length=1, max_length=128, description="the name that the sentinels watch")
    nodes: tuple[Annotated[str, AfterValidator(_node)], ...] = Field(
        min_length=1, max_length=32, description="host:port of each"
    )
    username: str | None = None
    credential: CredentialName | None = Field(
        None, description="the sentinels' own password, if they have one"
    )


class RespSettings(_Section):
    """What Redis and Valkey share."""

    url: Url
    username: str | None = Field(None, max_length=128)
    credential: CredentialName | None = Field(None, description="name given to `valkyrie-ctl creds set`")
    password_encrypted: Annotated[str, AfterValidator(_encrypted)] | None = Field(
        None, max_length=4096, description="made by `valkyrie-ctl creds encrypt`"
    )
    pool_size: int = Field(10, ge=1, le=1000)
    max_retries: int = Field(3, ge=0, le=10, description="of calls that may be repeated")
    timeout_ms: int = Field(1000, ge=10, le=60_000, description="of one call, connecting included")
    cluster_mode: bool = False
    tls: bool | TlsSettings = False
    sentinel: SentinelSettings | None = None
    failover_wait_ms: int = Field(
        5000,
        ge=0,
        le=60_000,
        description="in a cluster or with sentinels: how long calls wait for a new primary; 0: they fail",
    )
    breaker_failures: int = Field(5, ge=1, le=1000, description="in a row, that open the circuit breaker")
    breaker_seconds: float = Field(5.0, ge=0.1, le=600, description="until it lets one probe through")
    coalesce: bool = Field(True, description="turn concurrent try_consume calls into one server call")

    @property
    def failover_s(self) -> float:
        """How long a call may wait for a new primary; a server on its own gets none."""
        return self.failover_wait_ms / 1000 if self.cluster_mode or self.sentinel is not None else 0.0

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.cluster_mode and self.sentinel is not None:
            raise ValueError("cluster_mode and sentinel exclude each other")
        if self.credential is not None and self.password_encrypted is not None:
            raise ValueError("credential and password_encrypted exclude each other")
        return self

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        target = _parsed(self.url)
        unix = target.address.path is not None
        if self.cluster_mode and (unix or target.database):
            raise ValueError("url: a cluster is reached over TCP and has database 0 only")
        if unix and self.tls:
            raise ValueError("tls: a Unix socket has none; leave it out, or use a URL with a host")
        bare = self.credential is None and self.password_encrypted is None
        if bare and target.username is not None:
            raise ValueError(
                "url has a user name and there is no `credential`: if it is the password, take it out and "
                "run `valkyrie-ctl creds set NAME`; write `credential: NAME` beside the url"
            )
        if bare and self.username is not None:
            raise ValueError("username without a password: name a `credential` beside it")
        return self


def _scheme(url: str, known: tuple[str, ...]) -> str:
    if urlsplit(url).scheme not in known:
        raise ValueError(f"must begin with {', '.join(f'{scheme}://' for scheme in known)}")
    _parsed(url)
    return url


class RedisSettings(RespSettings):
    url: Url = "redis://localhost:6379"

    @field_validator("url")
    @classmethod
    def _known(cls, url: str) -> str:
        return _scheme(url, SCHEMES["redis"])


class ValkeySettings(RespSettings):
    url: Url = "valkey://localhost:6379"
    compression: Literal["none", "zstd"] = "none"
    compression_min_bytes: int = Field(256, ge=64, le=1 << 20)
    encryption_credential: CredentialName | None = Field(
        None, description="name of the credential that holds the key of values (AES-256-GCM)"
    )
    read_from: Literal["primary", "replica"] = Field(
        "primary", description="where `get`, `exists` and `ttl` are read; buckets are always the primary's"
    )

    @field_validator("url")
    @classmethod
    def _known(cls, url: str) -> str:
        return _scheme(url, SCHEMES["valkey"])


class EmbeddedSettings(_Section):
    path: Path = Field(
        Path("/var/lib/valkyrie/store.db"), description="SQLite database; left out: store.db in state_dir"
    )
    max_values_mb: int = Field(64, ge=1, le=65536, description="what `set` may fill in all")


class YggdrasilSettings(_Section):
    """The kernel's table on this host. What cannot hold here is refused at start, with the reason."""

    bind_address: str = Field("local", description="who reaches it: `local`, processes of this host")
    max_memory_mb: int = Field(512, ge=8, le=1 << 20, description="of all its maps; more is refused")
    numa_aware: bool = False
    hash_replicas: int = Field(1, ge=1, description="copies of a key on other nodes: 1, this host")
    snapshot_interval_seconds: float = Field(1.0, ge=0.1, le=3600, description="sync to the durable store")
    max_values: int = Field(4096, ge=16, le=1 << 20, description="values that `set` keeps at once")


class StoreSettings(_Section):
    """Which stores there are, and in which order applications fall back."""

    name: str | None = Field(
        None, description="the appliance's name in the stores; none: the host's. A standby uses its own"
    )
    mode: Backend = Field("embedded", description="the store that is asked first")
    fallback_chain: tuple[Backend, ...] = Field((), max_length=4, description="in order; `mode` leads it")
    when_all_fail: Literal["fail_closed", "fail_open", "local"] = Field(
        "fail_closed",
        description="try_consume with every store away: refuse, allow, or limit in this process's memory",
    )
    fail_back_seconds: float = Field(
        5.0, ge=0, le=3600, description="how long an earlier store must be healthy before it is used again"
    )
    allow_flush: bool = Field(False, description="whether flush_all may delete anything")
    redis: RedisSettings = RedisSettings()
    valkey: ValkeySettings = ValkeySettings()
    embedded: EmbeddedSettings = EmbeddedSettings()
    yggdrasil: YggdrasilSettings = YggdrasilSettings()

    @field_validator("name")
    @classmethod
    def _named(cls, name: str | None) -> str | None:
        if name is not None and not APPLIANCE.fullmatch(name):
            raise ValueError("must be lower-case letters, digits, dots, hyphens, underscores: as `edge-1`")
        return name

    @property
    def chain(self) -> tuple[Backend, ...]:
        """The stores in the order in which they are asked."""
        return (self.mode, *(name for name in dict.fromkeys(self.fallback_chain) if name != self.mode))


class SyncSettings(_Section):
    """Bucket state in the first durable store of the chain (embedded if it has none)."""

    enabled: bool = True
    interval_seconds: float = Field(1.0, ge=0.1, le=3600)
    buckets_a_second: int = Field(
        150_000, ge=1000, le=10_000_000, description="pace, so that others do not wait"
    )
