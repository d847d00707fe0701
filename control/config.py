# SPDX-License-Identifier: Apache-2.0
"""Settings of the appliance: what `valkyrie.yaml` may say, its defaults, and how a mistake is named.

Limits, exempts, bans and attachments are not settings: they live in the state and change by the API.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from valkyrie.adapters.notify.settings import NotifySettings
from valkyrie.adapters.settings import CHECK_FILES, StoreSettings, SyncSettings
from valkyrie.control.alerts.settings import AlertSettings
from valkyrie.control.errors import InvalidInput
from valkyrie.control.prefix import canonical_prefix
from valkyrie.control.telemetry.settings import TelemetrySettings

DEFAULT_PATH = Path("/etc/valkyrie/valkyrie.yaml")
MAX_SETTINGS_BYTES = 1 << 20
SECRET_WORD = re.compile(r"pass|secret|token|auth|api_?key|^key$|pwd")
KIND = re.compile(r"bool|[A-Z]\w*|function-.*")
"""What pydantic calls each of two kinds of value in a path. Settings have no such names."""


def _prefix(text: str) -> str:
    try:
        return canonical_prefix(text)
    except InvalidInput as error:
        raise ValueError(str(error)) from error


class WrongSettings(InvalidInput):
    """A line of the settings is wrong; its text says which, to logs and to applications."""

    def __str__(self) -> str:
        return f"{self.what} ({self.where}); {self.hint}"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TableSettings(_Section):
    """The bucket table. A change of `buckets` takes effect when the program is built anew."""

    buckets: int = Field(1 << 20, ge=1 << 10, le=1 << 26, description="buckets held at once; a power of two")
    full: Literal["closed", "open"] = Field(
        "closed",
        description="a newcomer to a full set inherits the debt of what it replaces (closed) or starts full",
    )

    @field_validator("buckets")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            below = 1 << (value.bit_length() - 1)
            raise ValueError(f"must be a power of two, as {below} or {below << 1}")
        return value


class EventSettings(_Section):
    """Drop events: which share of the drops is reported, and how many at most."""

    sample: int = Field(1, ge=0, le=1 << 31, description="one drop in this many is reported; 0: none")
    rate: int = Field(1000, ge=0, le=1_000_000, description="events a second and CPU at most")


class AuditSettings(_Section):
    """How much of who changed what is kept."""

    keep: int = Field(10_000, ge=100, le=1_000_000, description="newest entries that are kept")


class Settings(_Section):
    """All settings; a missing file means these defaults."""

    state_dir: Path = Field(Path("/var/lib/valkyrie"), description="where the database and build.json lie")
    socket: Path = Field(Path("/run/valkyrie/valkyried.sock"), description="Unix socket of the API")
    bpffs: Path = Field(Path("/sys/fs/bpf"), description="BPF filesystem; pins lie in its folder valkyrie")
    group: str = Field(
        "valkyrie", min_length=1, max_length=64, description="Unix group that may change things"
    )
    read_group: str = Field(
        "valkyrie-read", min_length=1, max_length=64, description="group that may only read"
    )
    log: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["human", "json"] = Field("human", description="lines for people, or JSON")
    table: TableSettings = TableSettings()
    # Passing what cannot be parsed would be a way around every limit.
    malformed: Literal["drop", "pass"] = Field("drop", description="what becomes of malformed packets")
    events: EventSettings = EventSettings()
    protect: tuple[Annotated[str, AfterValidator(_prefix)], ...] = Field(
        (), max_length=1024, description="prefixes whose packets are never dropped"
    )
    audit: AuditSettings = AuditSettings()
    store: StoreSettings = Field(StoreSettings(), validate_default=True)
    sync: SyncSettings = SyncSettings()
    notify: NotifySettings = NotifySettings()
    alerts: AlertSettings = AlertSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @field_validator("state_dir", "socket", "bpffs")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError(f"must be an absolute path, as /{value}")
        return value

    @field_validator("store")
    @classmethod
    def _beside_the_state(cls, store: StoreSettings, info: ValidationInfo) -> StoreSettings:
        """The embedded store lies in state_dir unless it is told where."""
        if "path" in store.embedded.model_fields_set or "state_dir" not in info.data:
            return store
        embedded = store.embedded.model_copy(update={"path": info.data["state_dir"] / "store.db"})
        return store.model_copy(update={"embedded": embedded})

    @field_validator("protect")
    @classmethod
    def _sorted(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(value)))

    @property
    def pin_dir(self) -> Path:
        return self.bpffs / "valkyrie"

    @property
    def database(self) -> Path:
        return self.state_dir / "state.db"


def load_settings(path: Path | None = None, *, check_files: bool = False) -> Settings:
    """Settings from `path`, else from $VALKYRIE_CONFIG, else from the default place if it exists.

    `check_files`: those that they name must be usable too. Raises InvalidInput naming line and field, also
    when a file that was named cannot be read.
    """
    named = path or (Path(os.environ["VALKYRIE_CONFIG"]) if os.environ.get("VALKYRIE_CONFIG") else None)
    if named is None and not DEFAULT_PATH.exists():
        return Settings()
    target = named or DEFAULT_PATH
    try:
        with target.open("rb") as file:
            raw = file.read(MAX_SETTINGS_BYTES + 1)
    except OSError as error:
        raise InvalidInput(
            f"cannot read the settings {target}: {error.strerror}",
            "name a readable file by VALKYRIE_CONFIG, or write one",
        ) from error
    if len(raw) > MAX_SETTINGS_BYTES:
        raise InvalidInput(f"{target} is larger than {MAX_SETTINGS_BYTES} bytes", "settings are short")
    return parse_settings(raw, str(target), check_files=check_files)


def parse_settings(raw: bytes, origin: str, *, check_files: bool = False) -> Settings:
    """Settings from YAML text. `origin` is the file name that errors show. Raises InvalidInput."""
    # Here, because only a start with a settings file pays for the YAML library.
    from ruamel.yaml import YAML  # noqa: PLC0415
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    try:
        document = YAML().load(raw.decode())
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{origin} is not UTF-8 text at byte {error.start}", "save it as UTF-8") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or "not YAML"
        where = f"line {mark.line + 1}" if mark is not None else ""
        raise WrongSettings(f"{origin}: {problem}", "correct the YAML syntax there", where=where) from error
    if document is None:
        return Settings()
    if not isinstance(document, dict):
        raise WrongSettings(
            f"{origin} holds no `name: value` lines", "see the settings reference", where="line 1"
        )
    try:
        return Settings.model_validate(document, context=CHECK_FILES if check_files else None)
    except ValidationError as error:
        first = _meant(error)
        path = _written(first)
        field = _dotted(path)
        raise WrongSettings(
            f"{origin}: {_reason(first['type'], first['msg'], field)}",
            _unknown_hint(path) if first["type"] == "extra_forbidden" else f"correct {field}",
            where=f"line {_line_of(document, path)}, field {field}",
        ) from error


def _meant(error: ValidationError) -> ErrorDetails:
    """The first complaint; of `true or a section` given a section, not that it is no truth value."""
    told = error.errors(include_url=False)
    sections = (one for one in told if not (one["type"] == "bool_type" and isinstance(one["input"], dict)))
    return next(sections, told[0])


def _written(complaint: ErrorDetails) -> tuple[int | str, ...]:
    """The path as it stands in the file: without the kinds that pydantic names where there are two."""
    path = complaint["loc"]
    kept = [part for part in path if not KIND.fullmatch(str(part))]
    return path if complaint["type"] == "extra_forbidden" and KIND.fullmatch(str(path[-1])) else tuple(kept)


def _reason(kind: str, message: str, field: str) -> str:
    if kind == "extra_forbidden":
        return f"unknown setting {field}"
    return f"{field}: {message.removeprefix('Value error, ')}"


def _dotted(path: tuple[int | str, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _line_of(document: Any, path: tuple[int | str, ...]) -> int:
    """Line, from 1, of the innermost part of `path` that the document has."""
    node: Any = document
    line = 1
    for part in path:
        try:
            place = node.lc
            mark = place.key(part) if isinstance(part, str) else place.item(part)
            node = node[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
        line = int(mark[0]) + 1
    return line


def _unknown_hint(path: tuple[int | str, ...]) -> str:
    if path and SECRET_WORD.search(str(path[-1]).lower()):
        return (
            "secrets do not stand in the settings: run `valkyrie-ctl creds set NAME` and write "
            "`credential: NAME` here"
        )
    return _known_fields(path)


def _known_fields(path: tuple[int | str, ...]) -> str:
    model: Any = Settings
    for part in path[:-1]:
        found = getattr(model, "model_fields", {}).get(part)
        # Of `true or a section` the section is meant.
        kinds = () if found is None else (found.annotation, *get_args(found.annotation))
        model = next((kind for kind in kinds if hasattr(kind, "model_fields")), model)
    return "known here: " + ", ".join(model.model_fields)
