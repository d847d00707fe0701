# SPDX-License-Identifier: Apache-2.0
"""Which step of a migration may come after which. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from valkyrie.adapters.migrate.compare import Report
from valkyrie.adapters.migrate.note import Note, Phase, read_note
from valkyrie.control.errors import Conflict

Asked = Literal["", "validate", "repair", "cutover", "cleanup", "abort"]
STEPS = "valkyrie-ctl store migrate"
BACK: dict[Phase, Phase] = {
    "copying": "aborting",
    "switching": "aborting",
    "cutover": "returning",
    "returning": "aborting",
}
CURRENT_S = 3600.0  # a comparison older than this says nothing about now


@dataclass(frozen=True, slots=True)
class Record:
    """How far a migration is. Whoever reads it anew goes on where it was written, and does at most a piece
    twice, which does no harm.
    """

    note: Note
    emptied: bool = True  # the target, before anything is copied to it
    seen: bool = False  # everybody has had the time to see the note
    copied: bool = False
    kind: Literal["buckets", "values"] = "buckets"  # what is being copied
    at: str = ""  # the page that comes next
    done: int = 0
    total: int = 0
    asked: Asked = ""
    force: bool = False
    report: dict[str, Any] | None = None  # of the last comparison
    compared: float = 0.0  # seconds since 1970

    def enter(self, phase: Phase) -> Record:
        """The next phase, of which nobody knows yet."""
        note = replace(self.note, serial=self.note.serial + 1, phase=phase)
        return replace(self, note=note, seen=False, done=0, total=0)

    @property
    def same(self) -> bool:
        """Whether the last comparison found no difference, or mended each."""
        report = self.report
        return report is not None and report["repaired"] == sum(report["differences"].values())


def packed(record: Record) -> dict[str, Any]:
    return {**asdict(record), "note": record.note.packed().decode()}


def unpacked(fields: dict[str, Any]) -> Record:
    """Raises ValueError, TypeError or KeyError for what is none."""
    note = read_note(str(fields["note"]).encode())
    if note is None:
        raise ValueError("no note of a migration")
    return Record(**{**fields, "note": note})


def told(report: Report) -> dict[str, Any]:
    """A report as JSON has it."""
    return {**asdict(report), "differences": dict(report.differences)}


def check_step(record: Record | None, asked: Asked, *, force: bool, primary: str, now: float) -> None:
    """Raises Conflict naming the step that is right. `primary` is the store that the settings name."""
    if record is None:
        raise Conflict("no store is being migrated", f"begin with `{STEPS} start SOURCE TARGET`")
    note = record.note
    if record.asked == asked:
        return
    if record.asked in ("cutover", "cleanup") and asked != "abort":
        raise Conflict(f"{record.asked} is under way", f"`{STEPS} status` shows how far it is")
    if note.phase in ("aborting", "returning") and asked != "abort":
        raise Conflict("the migration is being aborted", f"`{STEPS} status` shows how far it is")
    if asked in ("validate", "repair"):
        _check_validate(record)
    elif asked == "cutover":
        _check_cutover(record, force=force, now=now)
    elif asked == "cleanup":
        _check_cleanup(record, force=force, primary=primary)
    elif asked == "abort":
        _check_abort(note, force=force, primary=primary)


def _check_validate(record: Record) -> None:
    if record.note.phase not in ("copying", "cutover") or not record.copied:
        raise Conflict("there is nothing to compare yet", f"wait until `{STEPS} status` says 100 %")


def _check_cutover(record: Record, *, force: bool, now: float) -> None:
    if record.note.phase != "copying":
        raise Conflict(f"{record.note.target} is in use already", f"next comes `{STEPS} cleanup`")
    if not record.copied:
        raise Conflict("not everything is copied yet", f"wait until `{STEPS} status` says 100 %")
    if force:
        return
    if record.report is None or now - record.compared > CURRENT_S:
        raise Conflict("the stores were not compared in the last hour", f"run `{STEPS} validate` first")
    if not record.same:
        raise Conflict("the stores differ", f"mend that by `{STEPS} validate --repair`, or use --force")


def _check_cleanup(record: Record, *, force: bool, primary: str) -> None:
    note = record.note
    if note.phase != "cutover" or not record.seen:
        raise Conflict(f"{note.source} is in use", f"next comes `{STEPS} {next_step(record)}`")
    if primary != note.target and not force:
        raise Conflict(
            f"the settings still name {primary}: whoever starts later would use it",
            f"write {note.target} in the place of {note.source} in valkyrie.yaml, on every host",
        )


def _check_abort(note: Note, *, force: bool, primary: str) -> None:
    if note.phase == "cleaning":
        raise Conflict(f"{note.source} is being emptied: there is no way back", f"`{STEPS} status`")
    if primary == note.target and not force:
        raise Conflict(
            f"the settings name {primary}: whoever starts later would use it",
            f"write {note.source} there again first, on every host",
        )


def next_step(record: Record) -> str:
    """What a person does next; nothing while something is under way."""
    phase = record.note.phase
    if record.asked or not record.seen or phase not in ("copying", "cutover"):
        return ""
    if phase == "cutover":
        return "cleanup"
    if not record.copied:
        return ""
    return "cutover" if record.same else "validate"
