# SPDX-License-Identifier: Apache-2.0
"""A BPF ring buffer read through shared memory, many records at a time.

Layout of the mapping: the consumer's position (a page we write), then the producer's position
(a page) and the data twice over, so that a record never wraps. Before each record stand 8 bytes: its
length with two flags, and what is the kernel's own.
"""

import asyncio
import mmap
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from valkyrie.control.dataplane import bpf

BUSY, DISCARD, HEADER = 1 << 31, 1 << 30, 8
BATCH = 4096
PAUSE_S = 0.01  # between looks at a ring that fills, so that a batch is worth its fixed cost

Records = NDArray[Any]


class Ring:
    """The one reader of a pinned ring. A context manager, or close() it."""

    def __init__(self, path: Path, dtype: np.dtype[Any]) -> None:
        """Records begin as `dtype` says; shorter ones are passed over. NotFound: none is pinned."""
        self._dtype = dtype
        self._fd = bpf.obj_get(path)
        self._size = bpf.map_info(self._fd).max_entries
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(self._fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._ring = mmap.mmap(self._fd, page + 2 * self._size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        # numpy loads and stores the positions whole, as the kernel does; struct would go by bytes.
        self._read_to = np.frombuffer(self._consumer, np.uint64, 1)
        self._written_to = np.frombuffer(self._ring, np.uint64, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        del self._read_to, self._written_to
        self._ring.close()
        self._consumer.close()
        os.close(self._fd)

    def fileno(self) -> int:
        """Readable when there are records: for a poll or an event loop."""
        return self._fd

    def batch(self, most: int = BATCH) -> Records:
        """The records there are, at most so many, copied; they are consumed."""
        found: list[Records] = []
        at, end, room = int(self._read_to[0]), int(self._written_to[0]), most
        while at < end and room:
            start = mmap.PAGESIZE + at % self._size
            first = int(np.ndarray((), np.uint32, self._ring, start))
            if first & BUSY:
                break
            length = first & ~DISCARD
            stride = (length + HEADER + 7) & ~7
            count = 1
            if not first & DISCARD and length >= self._dtype.itemsize:
                count = self._alike(start, length, min((end - at) // stride, room))
                found.append(np.ndarray((count,), self._dtype, self._ring, start + HEADER, (stride,)).copy())
                room -= count
            at += count * stride
        self._read_to[0] = at
        if not found:
            return np.zeros(0, self._dtype)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _alike(self, start: int, length: int, most: int) -> int:
        """How many of the next `most` records have this length and are whole."""
        stride = (length + HEADER + 7) & ~7
        same = np.ndarray((most,), np.uint32, self._ring, start, (stride,)) == length
        return most if same.all() else int(same.argmin())

    async def batches(self) -> AsyncIterator[Records]:
        """Batches for ever, as they come; a ring that never runs dry leaves the loop to others."""
        while True:
            found = self.batch()
            if len(found):
                yield found
                await asyncio.sleep(0 if len(found) == BATCH else PAUSE_S)
            else:
                await self._readable()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._fd)
