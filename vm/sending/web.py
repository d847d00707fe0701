# SPDX-License-Identifier: Apache-2.0
"""HTTP requests over the kernel's own TCP, a connection each, a few at a time."""

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import Self

from profiles.target import Target

AT_ONCE = 8
REQUEST_S = 5.0
MOST_BYTES = 1 << 20


class Web:
    """Requests under way. `done` holds (number, time in ns) of those that were answered in full."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._threads = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="web")
        self.done: deque[tuple[int, int]] = deque()  # appended and popped by one thread each
        self.under_way = 0

    def ask(self, seq: int) -> None:
        """Begin a request that carries the number."""
        self.under_way += 1
        self._threads.submit(self._get, seq).add_done_callback(lambda _: self._ended())

    def _ended(self) -> None:
        self.under_way -= 1

    def _get(self, seq: int) -> None:
        target = self._target
        connection = HTTPConnection(
            str(target.dst), target.http_port, timeout=REQUEST_S, source_address=(str(target.src), 0)
        )
        try:
            connection.request("GET", f"/?run={target.run:08x}&seq={seq}", headers={"Connection": "close"})
            response = connection.getresponse()
            whole = response.read(MOST_BYTES)
            if response.status < 500 and (response.length in (0, None) or len(whole) == MOST_BYTES):
                self.done.append((seq, time.time_ns()))
        except (OSError, HTTPException):
            return  # lost: the number stays open in the ledger
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
