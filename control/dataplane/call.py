# SPDX-License-Identifier: Apache-2.0
"""Calls: taking tokens of the kernel's buckets from a process of this host, and restoring them.

The program `call` is run on a request in this process's memory (struct call in bpf/abi.h), so that calls
and packets share buckets, plans, overrides and leases. Any privileged process may call, whether the
daemon runs or not. For one thread each.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valkyrie.control import abi
from valkyrie.control.cost import Cost
from valkyrie.control.dataplane import bpf
from valkyrie.control.dataplane.call_entry import entry_of
from valkyrie.control.dataplane.keyname import Record
from valkyrie.control.dataplane.testrun import Run
from valkyrie.control.errors import Conflict, DataplaneError, NotFound, Unavailable
from valkyrie.control.key import KeySpec

PROGRAM = "call"
HEADER = struct.Struct("=4QIHHIBBBx")
ANSWER = struct.Struct("=4QII")
HEAD, ENTRY = abi.CALL.itemsize, abi.CALL_ENTRY.itemsize
COUNT_AT, TOLD_AT, POINT_AT = (abi.CALL.fields[name][1] for name in ("count", "told", "at"))  # type: ignore[index]
MOST = abi.CALL_ENTRIES
CONTENDED_TRIES = 64
NO_POSITION = 0xFFFF

Array = NDArray[Any]
Told = tuple[int, int, int, int, int, int]
"""Level afterwards, cost, mult, tau, shift, verdict: struct call_answer."""


class Stale(Exception):  # noqa: N818 - as the program says it
    """Another limit lies at the position: find the limit's position again."""


def declared(uid: int, position: int) -> bytes:
    """The header for tokens of a declared limit."""
    return HEADER.pack(0, 0, 0, 0, 0, uid, position, 1, abi.CALL_CONSUME, 0, 0)


def own(cost: Cost) -> bytes:
    """The header for tokens of a limit that the caller brings."""
    return HEADER.pack(
        0, 0, cost.mult, cost.tau, cost.shift, abi.UID_CALL, NO_POSITION, 1, abi.CALL_OWN, 0, 0
    )


def at_time(header: bytes, magic: int, now_ns: int) -> bytes:
    """The same at another time than the clock's, for who knows the table's test magic."""
    return struct.pack("=2Q", magic, now_ns) + header[16:]


def check_abi(pin_dir: Path) -> None:
    """Raise Conflict if the table is of another version, whose programs understand other requests; a
    process may be older than the daemon. NotFound if there is no table.
    """
    with bpf.opened(pin_dir / "control") as fd:
        raw = bpf.map_lookup(fd, bytes(4), bpf.map_info(fd).value_size) or bytes(4)
    (found,) = struct.unpack_from("=I", raw)
    if found not in (0, abi.ABI_VERSION):
        raise Conflict(
            f"the table in {pin_dir} speaks ABI {found}, this process {abi.ABI_VERSION}",
            "restart this process with the version of Valkyrie that valkyried has",
        )


class Caller:
    """The pinned program `call`. Use as a context manager, or close() it."""

    def __init__(self, pin_dir: Path) -> None:
        """Raises NotFound if nothing is pinned there, PermissionRefused, Unavailable."""
        self.pin_dir = pin_dir
        self._run: Run | None = None
        self.begun = False  # whether the last consume() came to take anything, though it may have failed
        self.open()

    def open(self) -> None:
        """Open the pins, again if need be: another table may lie there. Raises as the constructor, and
        Conflict for the table of another version of Valkyrie.
        """
        self.close()
        check_abi(self.pin_dir)
        self._run = Run(bpf.obj_get(self.pin_dir / PROGRAM))
        try:
            with bpf.opened(self.pin_dir / "control") as fd:
                self._table = bpf.map_info(fd).id
            self._control = self._view("control", abi.CONTROL, 1)
            self._rulesets = self._view("rulesets", abi.RULESET, 2)
            self._limits = self._view("limits", abi.LIMIT, 2 * abi.MAX_LIMITS).reshape(2, -1)
        except BaseException:
            self.close()
            raise

    def _view(self, name: str, dtype: np.dtype[Any], entries: int) -> Array:
        with bpf.opened(self.pin_dir / name) as fd:
            if bpf.map_info(fd).value_size != dtype.itemsize:
                raise Conflict(
                    f"{self.pin_dir / name} is of another version of Valkyrie",
                    "restart this process and valkyried",
                )
            size = -(-dtype.itemsize // 8) * 8 * entries
            mapped = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)
        return np.ndarray((entries,), dtype, buffer=mapped)

    def close(self) -> None:
        """Again: nothing."""
        if self._run is not None:
            self._run.close()
            self._run = None

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Declared limits.

    @property
    def serial(self) -> int:
        """Of the ruleset in force."""
        return int(self._rulesets["serial"][self._generation])

    @property
    def _generation(self) -> int:
        return int(self._control["active"][0]) & 1

    def position(self, uid: int) -> int | None:
        """Where the limit with this uid lies in the ruleset in force; None: nowhere."""
        generation = self._generation
        count = min(int(self._rulesets["positions"][generation]), abi.MAX_LIMITS)
        found = np.flatnonzero(self._limits["uid"][generation, :count] == uid)
        return int(found[0]) if len(found) else None

    # One entry.

    def ask(self, header: bytes, entry: bytes) -> Told:
        """One entry's answer. Raises Stale, Unavailable if others are at the bucket all the time."""
        for _ in range(CONTENDED_TRIES):
            run = self._run or self._opened()
            packet = run.packet
            packet[: HEAD + ENTRY] = header + entry
            run.go(HEAD + ENTRY)
            if packet[TOLD_AT] != abi.CALL_DONE:
                self._mend(packet[TOLD_AT])
                continue
            told: Told = ANSWER.unpack_from(packet, HEAD)
            if told[5] != abi.CALL_CONTENDED:
                return told
        raise _contended()

    def _opened(self) -> Run:
        """After an `open` that failed: once more."""
        self.open()
        assert self._run is not None
        return self._run

    def _mend(self, told: int) -> None:
        """After an answer other than CALL_DONE: another try makes sense, or this raises."""
        if told == abi.CALL_STALE:
            raise Stale
        if told != abi.CALL_RETIRED:
            raise DataplaneError(
                f"the program `call` did not take a request ({told})", "restart this process and valkyried"
            )
        before = self._table
        self.open()
        if self._table == before:
            raise Unavailable("the table is being replaced", "ask again in a second")

    # Many entries.

    def consume(self, header: bytes, entries: Array) -> Array:
        """The answers (abi.CALL_ANSWER) to entries (abi.CALL_ENTRY) of one limit, in order.

        Entries that were contended are asked again. Raises Stale, of which a batch's first part may
        have been taken only if the ruleset changed in between: `Stale.args[0]` holds those answers.
        Unavailable: of the others some may have been taken.
        """
        self.begun = False
        answers = np.empty(len(entries), abi.CALL_ANSWER)
        done = 0
        while done < len(entries):
            try:
                told = self._piece(header, entries[done : done + MOST])
            except Stale:
                raise Stale(answers[:done]) from None
            answers[done : done + len(told)] = told
            done += len(told)
        for _ in range(CONTENDED_TRIES):
            again = np.flatnonzero(answers["verdict"] == abi.CALL_CONTENDED)
            if not len(again):
                return answers
            self._ask_again(header, entries, answers, again)
        raise _contended()

    def _ask_again(self, header: bytes, entries: Array, answers: Array, again: NDArray[np.intp]) -> None:
        """Put the answers to the entries at these places beside those that stand."""
        while len(again):
            try:
                told = self._piece(header, entries[again[:MOST]])
            except Stale:  # those that stand are no first part
                raise Unavailable(
                    "the ruleset changed while others were at these buckets", "ask again"
                ) from None
            answers[again[: len(told)]] = told
            again = again[len(told) :]

    def _piece(self, header: bytes, entries: Array) -> Array:
        """At most MOST entries. The program answers as many as its tail calls reach, one at least."""
        length = HEAD + len(entries) * ENTRY
        while True:
            run = self._run or self._opened()
            packet = run.packet
            packet[:HEAD] = header
            packet[COUNT_AT : COUNT_AT + 4] = struct.pack("=I", len(entries))
            packet[HEAD:length] = entries.tobytes()
            run.go(length)
            if packet[TOLD_AT] == abi.CALL_DONE:
                self.begun = True
                break
            self._mend(packet[TOLD_AT])
        answered = packet[POINT_AT]
        told: Array = np.frombuffer(bytes(packet[HEAD : HEAD + answered * ENTRY]), abi.CALL_ANSWER)
        if not answered:
            raise DataplaneError("the program `call` answered nothing", "restart valkyried")
        return told

    def restore(self, uid: int, spec: KeySpec, levels: Iterable[tuple[Record, int]]) -> int:
        """See to it that each bucket of the limit is at least `level` time units short of full from now
        on; made if it is not there. None is brought nearer to full. How many were given.

        `uid` is a declared limit's, UID_CALL, or UID_BAN with keyname.BAN_KEY. Raises NotFound for a
        limit that is not in force. May be repeated.
        """
        given, rest = 0, iter(levels)
        while piece := list(islice(rest, MOST * 64)):
            raw = b"".join(entry_of(record, spec, level) for record, level in piece if level > 0)
            self.restore_entries(uid, np.frombuffer(raw, abi.CALL_ENTRY))
            given += len(piece)
        return given

    def restore_entries(self, uid: int, entries: Array) -> None:
        """As restore(), for entries (abi.CALL_ENTRY) whose `amount` is the level."""
        for _ in range(CONTENDED_TRIES):
            foreign = uid in (abi.UID_CALL, abi.UID_BAN)
            position = NO_POSITION if foreign else self.position(uid)
            if position is None:
                raise NotFound(
                    f"no limit with uid {uid} is in force", "restore after the ruleset is published"
                )
            try:
                self.consume(HEADER.pack(0, 0, 0, 0, 0, uid, position, 1, abi.CALL_RESTORE, 0, 0), entries)
            except Stale:
                continue
            return
        raise Unavailable("the ruleset changes all the time", "try again")


def opaque_entries(keys: bytes, amount: int) -> Array:
    """Entries for keys of 16 bytes each, joined: opaque ones, or canonical addresses that are sources."""
    entries = np.zeros(len(keys) // 16, abi.CALL_ENTRY)
    entries["src"] = np.frombuffer(keys, np.uint64).reshape(-1, 2)
    entries["amount"] = amount
    return entries


def _contended() -> Unavailable:
    return Unavailable("other callers are at this bucket all the time", "ask again")
