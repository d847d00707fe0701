# SPDX-License-Identifier: Apache-2.0
"""Values in the kernel's map, by runs of the program `value` (bpf/value.h).

An expiry counts in time since boot, suspended time included (CLOCK_BOOTTIME): a minute is a minute to
whoever waits for it, and no setting of the wall clock moves it. An expired value is gone to every call;
its memory is freed when room is needed.
"""

from __future__ import annotations

import re
import struct
from hashlib import blake2b
from pathlib import Path
from time import monotonic

from valkyrie.adapters.asked import INT64
from valkyrie.adapters.errors import CallRefused, ConsistencyError
from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, values
from valkyrie.control.dataplane.call import check_abi
from valkyrie.control.dataplane.testrun import Run
from valkyrie.control.errors import DataplaneError, Unavailable

PROGRAM = "value"
CALL = struct.Struct("=32s3QqIBBBx")
TOLD_AT = abi.VALUE_CALL.fields["told"][1]  # type: ignore[index]
HEAD = abi.VALUE_CALL.itemsize
INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
NS_A_MS = 1_000_000
CONTENDED_TRIES = 1024
SWEPT_AT_ONCE = 4096
PAUSE_S = 1.0


class Values:
    """For one thread. `magic` and `now_ns` set the clock, for who knows the table's test magic."""

    def __init__(self, pin_dir: Path, magic: int = 0, now_ns: int = 0) -> None:
        """Raises NotFound if nothing is pinned there, PermissionRefused, Unavailable."""
        self._pin_dir = pin_dir
        self._run: Run | None = None
        self.magic, self.now_ns = magic, now_ns
        self._swept: bytes | None = None  # how far the sweep has come
        self._look_again = 0.0
        self.open()

    def open(self) -> None:
        self.close()
        check_abi(self._pin_dir)
        with bpf.opened(self._pin_dir / values.VALUES) as fd:
            self._map = bpf.map_info(fd).id
        self._run = Run(bpf.obj_get(self._pin_dir / PROGRAM))

    def close(self) -> None:
        """Again: nothing."""
        if self._run is not None:
            self._run.close()
            self._run = None

    def get(self, name: str) -> bytes | None:
        if self._ask(abi.VALUE_GET, _place(name), room=abi.VALUE_BYTES) != abi.VALUE_DONE:
            return None
        _, integer, length, kind = self._answer()
        if kind == abi.VALUE_IS_INTEGER:
            return b"%d" % integer
        assert self._run is not None
        return bytes(self._run.packet[HEAD : HEAD + length])

    def lasts(self, name: str) -> tuple[bool, int]:
        """Whether there is a value, and how many ns it has left; 0: it stays."""
        if self._ask(abi.VALUE_GET, _place(name)) != abi.VALUE_DONE:
            return False, 0
        return True, self._answer()[0]

    def put(self, name: str, value: bytes, ttl_ms: int | None) -> None:
        """At most VALUE_BYTES. Raises CallRefused when there is no room."""
        lasts = 0 if ttl_ms is None else ttl_ms * NS_A_MS
        if INTEGER.fullmatch(value) and int(value) in INT64:
            self._write(abi.VALUE_SET, name, lasts, integer=int(value))
        else:
            self._write(abi.VALUE_SET, name, lasts, data=value)

    def add(self, name: str, amount: int, ttl_ms: int | None) -> int:
        """Raises ConsistencyError when value or sum is no integer of 64 bits, CallRefused when there
        is no room.
        """
        lasts = 0 if ttl_ms is None else ttl_ms * NS_A_MS
        if self._write(abi.VALUE_ADD, name, lasts, integer=amount) == abi.VALUE_NO_INTEGER:
            raise ConsistencyError(
                "cannot add to it: the value or the sum is no integer of 64 bits",
                "delete the value, or use another key",
            )
        return self._answer()[1]

    def delete(self, name: str) -> bool:
        return self._ask(abi.VALUE_DELETE, _place(name)) == abi.VALUE_DONE

    def flush(self) -> int:
        """Delete all; how many there were."""
        return sum(self._ask(abi.VALUE_DELETE, place) == abi.VALUE_DONE for place in self._places())

    def sweep(self, most: int = SWEPT_AT_ONCE) -> int:
        """Free the memory of what has expired among the next `most` values; how many did."""
        places = self._places(most, self._swept)
        self._swept = places[-1] if len(places) == most else None
        return sum(self._ask(abi.VALUE_SWEEP, place) == abi.VALUE_DONE for place in places)

    def _places(self, most: int | None = None, after: bytes | None = None) -> list[bytes]:
        with bpf.opened(self._pin_dir / values.VALUES) as fd:
            bound = bpf.map_info(fd).max_entries if most is None else most
            return bpf.map_keys(fd, values.KEY_BYTES, bound, after)

    def _write(self, op: int, name: str, lasts: int, *, integer: int = 0, data: bytes | None = None) -> int:
        place = _place(name)
        told = self._ask(op, place, lasts, integer, data)
        if told == abi.VALUE_FULL and self._make_room():
            told = self._ask(op, place, lasts, integer, data)
        if told == abi.VALUE_FULL:
            raise CallRefused(
                f"all {values.room(self._pin_dir)} places for values are taken",
                "raise store.yggdrasil.max_values, give values a TTL, or delete some",
            )
        return told

    def _make_room(self) -> bool:
        """Sweep until something was freed. Looking at all values in vain is not repeated for a second."""
        if monotonic() < self._look_again:
            return False
        for _ in range(1 + values.room(self._pin_dir) // SWEPT_AT_ONCE):
            if self.sweep():
                return True
        self._look_again = monotonic() + PAUSE_S
        return False

    def _ask(
        self,
        op: int,
        place: bytes,
        lasts: int = 0,
        integer: int = 0,
        data: bytes | None = None,
        room: int = 0,
    ) -> int:
        """What the program told: VALUE_DONE, _ABSENT, _FULL or _NO_INTEGER."""
        length = 0 if data is None else len(data)
        kind = abi.VALUE_IS_INTEGER if data is None else abi.VALUE_IS_BYTES
        asked = CALL.pack(place, self.magic, self.now_ns, lasts, integer, length, op, 0, kind)
        if data:
            asked += data.ljust(-(-length // 8) * 8, b"\0")
        size = len(asked) + room
        for _ in range(CONTENDED_TRIES):
            run = self._run or self._opened()
            run.packet[: len(asked)] = asked
            run.go(size)
            told = run.packet[TOLD_AT]
            if told == abi.VALUE_RETIRED:
                self._reopen()
            elif told == abi.VALUE_WRONG:
                raise DataplaneError("the program `value` did not take a request", "restart this process")
            elif told != abi.VALUE_CONTENDED:
                return told
        raise Unavailable("other callers are at this value all the time", "ask again")

    def _answer(self) -> tuple[int, int, int, int]:
        """Ns left, integer, length, kind."""
        assert self._run is not None
        _, _, _, lasts, integer, length, _, _, kind = CALL.unpack_from(self._run.packet)
        return lasts, integer, length, kind

    def _opened(self) -> Run:
        self.open()
        assert self._run is not None
        return self._run

    def _reopen(self) -> None:
        before = self._map
        self.open()
        if self._map == before:
            raise Unavailable("the map of values is being replaced", "ask again in a second")


def _place(name: str) -> bytes:
    """Where the value lies: a hash that no two keys share."""
    return blake2b(name.encode(), digest_size=32).digest()
