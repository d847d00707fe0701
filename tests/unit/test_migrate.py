# SPDX-License-Identifier: Apache-2.0
"""The pure parts of a migration: notes, order of the steps, and what counts as a difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from valkyrie.adapters.errors import ConsistencyError
from valkyrie.adapters.migrate.compare import Reading, Report, bucket_differs, value_differs
from valkyrie.adapters.migrate.note import MAX_BYTES, Note, Phase, read_note
from valkyrie.adapters.migrate.plan import Asked, Record, check_step, next_step, told
from valkyrie.adapters.migrate.side import Value
from valkyrie.control.errors import Conflict
from valkyrie.control.service.migration_file import MigrationFile

NOTE = Note(7, 1, "redis", "valkey", "copying")
NOW = 1000.0
SAME = told(Report(buckets=3))
DIFFERENT = {**SAME, "differences": {"value-missing": 2}}


def at(phase: Phase, **fields: object) -> Record:
    record = Record(replace(NOTE, phase=phase), seen=True, copied=True)
    return replace(record, **fields)  # type: ignore[arg-type]


def test_a_note_comes_back_as_it_was_written() -> None:
    assert read_note(NOTE.packed()) == NOTE


@pytest.mark.parametrize(
    "content",
    [None, b"", b"[]", b"{}", b'"x"', b"\xff", NOTE.packed().replace(b"copying", b"flying"),
     NOTE.packed().replace(b'"version": 1', b'"version": 2'), NOTE.packed().replace(b"valkey", b"redis"),
     NOTE.packed() + b" " * MAX_BYTES, b"[" * 4000],
)  # fmt: skip
def test_what_is_no_note_counts_as_none(content: bytes | None) -> None:
    assert read_note(content) is None


def test_no_phase_lets_one_store_decide_alone_beside_one_in_which_the_other_does() -> None:
    def alone(phase: Phase) -> str:
        note = replace(NOTE, phase=phase)
        return "" if note.both else note.primary

    ways: list[tuple[Phase, Phase]] = [
        ("copying", "switching"), ("switching", "cutover"), ("cutover", "cleaning"), ("copying", "aborting"),
        ("switching", "aborting"), ("cutover", "returning"), ("returning", "aborting"),
    ]  # fmt: skip
    for before, after in ways:
        assert {alone(before), alone(after)} != {"redis", "valkey"}, (before, after)


@pytest.mark.parametrize(
    ("record", "asked", "right"),
    [
        (None, "validate", "start SOURCE TARGET"),
        (at("copying", copied=False), "validate", "status"),
        (at("copying", copied=False), "cutover", "status"),
        (at("copying"), "cutover", "validate"),
        (at("copying", report=DIFFERENT, compared=NOW), "cutover", "validate --repair"),
        (at("copying", report=SAME, compared=NOW - 7200), "cutover", "validate"),
        (at("copying", report=SAME, compared=NOW), "cleanup", "cutover"),
        (at("switching", asked="cutover"), "cleanup", "status"),
        (at("cutover"), "cutover", "cleanup"),
        (at("cutover"), "cleanup", "valkyrie.yaml"),
        (at("cleaning", asked="cleanup"), "abort", "no way back"),
        (at("aborting", asked="abort"), "cutover", "status"),
    ],
)
def test_a_step_out_of_order_is_refused_with_the_right_one(
    record: Record | None, asked: Asked, right: str
) -> None:
    with pytest.raises(Conflict) as refused:
        check_step(record, asked, force=False, primary="redis", now=NOW)
    assert right in str(refused.value)


@pytest.mark.parametrize(
    ("record", "asked", "primary"),
    [
        (at("copying"), "validate", "redis"),
        (at("copying", report=SAME, compared=NOW), "cutover", "redis"),
        (at("copying", report={**DIFFERENT, "repaired": 2}, compared=NOW), "cutover", "redis"),
        (at("cutover"), "validate", "redis"),
        (at("cutover"), "cleanup", "valkey"),
        (at("cutover"), "abort", "redis"),
        (at("switching", asked="cutover"), "abort", "redis"),
        (at("copying", copied=False), "abort", "redis"),
    ],
)
def test_the_right_step_is_taken(record: Record, asked: Asked, primary: str) -> None:
    check_step(record, asked, force=False, primary=primary, now=NOW)


def test_the_next_step_is_told() -> None:
    assert next_step(at("copying", copied=False)) == ""
    assert next_step(at("copying")) == "validate"
    assert next_step(at("copying", report=SAME)) == "cutover"
    assert next_step(at("cutover")) == "cleanup"
    assert next_step(at("cutover", asked="cleanup")) == ""


@pytest.mark.parametrize(
    ("first", "then", "kind"),
    [
        (Reading(9, 9), Reading(9, 9), None),
        (Reading(9, 7), Reading(9, 7), "bucket-behind"),
        (Reading(9, 7), Reading(9, 9), None),  # it was told meanwhile
        (Reading(9, 7), Reading(10, 9), None),  # and is behind by what came after
        (Reading(7, 9), Reading(7, 9), "bucket-ahead"),
        (Reading(7, 9), Reading(9, 9), None),
        (Reading(4, 0), Reading(4, 0), None),  # both are full by now
        (Reading(9, 8.96), Reading(9, 8.96), None),  # within tolerance
    ],
)
def test_a_bucket_differs_when_one_store_has_not_heard_what_the_other_knew(
    first: Reading, then: Reading, kind: str | None
) -> None:
    assert bucket_differs(first, then, now=5.0) == kind


@pytest.mark.parametrize(
    ("primary", "secondary", "kind"),
    [
        (None, None, None),
        (Value(b"a", None), Value(b"a", None), None),
        (Value(b"a", None), None, "value-missing"),
        (Value(b"a", 100), None, None),  # it expires
        (None, Value(b"a", None), "value-extra"),
        (None, Value(b"a", 100), None),
        (Value(b"a", None), Value(b"b", None), "value-differs"),
        (Value(b"a", 5000), Value(b"a", None), "value-ttl"),
        (Value(b"a", 5000), Value(b"a", 3000), "value-ttl"),
        (Value(b"a", 5000), Value(b"a", 4990), None),
        (ConsistencyError("x"), None, "value-unreadable"),
        (Value(b"a", None), ConsistencyError("x"), "value-differs"),
    ],
)
def test_values_differ_by_content_and_by_time(
    primary: Value | None, secondary: Value | None, kind: str | None
) -> None:
    assert value_differs(primary, 0.0, secondary, 0.0) == kind


def test_a_record_outlives_the_process_and_a_damaged_one_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "migration.json"
    file = MigrationFile(path)
    assert file.load() is None
    kept = at("cutover", report=SAME, compared=NOW, asked="cleanup")
    file.keep(kept)
    assert file.load() == kept
    path.write_text(path.read_text()[:40])
    assert file.load() is None
    file.keep(None)
    assert not path.exists()
