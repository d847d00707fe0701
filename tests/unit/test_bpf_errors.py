# SPDX-License-Identifier: Apache-2.0
"""What the kernel, the compiler and the verifier say, in words for people."""

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valkyrie.control.dataplane import bpf, build, complaint, pins
from valkyrie.control.errors import (
    Conflict,
    DataplaneError,
    NotFound,
    PermissionRefused,
    Unavailable,
    ValkyrieError,
)

VERIFIER = """\
bpf: Failed to load program: Permission denied
0: R1=ctx() R10=fp0
; u8 *p = (void *)(long)ctx->data; @ police.h:17
0: (61) r6 = *(u32 *)(r1 +0)          ; R1=ctx() R6=pkt(r=0)
15: (71) r0 = *(u8 *)(r6 +3)
invalid access to packet, off=3 size=1, R6(id=0,off=3,r=0)
R6 offset is outside of the packet
processed 13 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 0
"""


@pytest.mark.parametrize(
    ("number", "kind", "word"),
    [
        (errno.EPERM, PermissionRefused, "root"),
        (errno.EACCES, PermissionRefused, "root"),
        (errno.ENOENT, NotFound, "valkyried"),
        (errno.EROFS, Unavailable, "remount,rw"),
        (errno.EEXIST, Conflict, "pinned"),
        (errno.ENOSYS, Unavailable, "5.15"),
        (errno.ENOMEM, Unavailable, "table.buckets"),
        (errno.EINVAL, DataplaneError, "doctor"),
    ],
)
def test_each_failure_of_the_kernel_has_its_class_and_a_hint(
    number: int, kind: type[ValkyrieError], word: str
) -> None:
    error = bpf._error(number, "doing this")
    assert type(error) is kind
    assert error.what == f"doing this: {os.strerror(number)}"
    assert word in error.hint


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (int(signal.SIGTERM), "told to end"),
        (int(signal.SIGKILL), "150 to 250 MB"),
        (int(signal.SIGSEGV), "crashed .SIGSEGV.; report"),
    ],
)
def test_a_build_that_a_signal_ended_says_which_and_what_to_do(number: int, says: str) -> None:
    done = subprocess.run(["sh", "-c", f"kill -{number} $$"], capture_output=True, text=True, check=False)
    with pytest.raises(DataplaneError, match=says):
        build._answer(done)


def test_a_missing_pin_is_not_found(tmp_path: Path) -> None:
    with pytest.raises((NotFound, PermissionRefused)):
        bpf.obj_get(tmp_path / "nothing")


def test_a_path_that_is_no_bpffs_is_told_apart(tmp_path: Path) -> None:
    assert not pins.is_bpffs(tmp_path)
    assert not pins.is_bpffs(tmp_path / "missing")


def test_the_verifiers_log_is_cut_to_cause_instruction_and_line() -> None:
    assert complaint.verifier(VERIFIER) == (
        "invalid access to packet, off=3 size=1, R6(id=0,off=3,r=0) at instruction "
        "15: (71) r0 = *(u8 *)(r6 +3) in police.h line 17: u8 *p = (void *)(long)ctx->data;"
    )


def test_a_program_too_complex_is_told_as_that() -> None:
    log = "bpf: Argument list too long. Program  too large (5260 insns), at most 4096 insns\n"
    assert (
        complaint.verifier(log)
        == "its 5260 instructions are too complex to be proved safe in a million steps"
    )


def test_the_compilers_first_complaint_is_named_with_its_place() -> None:
    log = "warning: noise\nkey.h:76:20: error: use of undeclared identifier 'x'\nkey.h:80:1: error: other\n"
    assert complaint.compiler(log) == "key.h line 76: use of undeclared identifier 'x'"


@given(st.text(max_size=2000))
def test_any_log_gives_a_short_complaint(log: str) -> None:
    assert 0 < len(complaint.verifier(log)) <= complaint.CUT
    assert len(complaint.compiler(log)) <= complaint.CUT


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"abi": 1}', '{"abi": [], "digest": 1}'])
def test_a_record_that_is_none_reads_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "build.json"
    path.write_text(text)
    assert build.read_record(path) is None


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = build.Build(1, "d", "t", 7, (1, 2))
    build.write_record(tmp_path / "build.json", written)
    assert build.read_record(tmp_path / "build.json") == written
    assert [path.name for path in tmp_path.iterdir()] == ["build.json"]
