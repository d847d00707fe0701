# SPDX-License-Identifier: Apache-2.0
"""Put frames on the wire one by one, by a packet socket; a few thousand a second."""

import errno
import socket
import time
from collections.abc import Callable

from valkyrie.control.lab.netns import Namespace
from valkyrie.control.lab.pace import LONGEST_WAIT_S, Progress, Sent, send_paced

NO_ROOM_S = 5.0


def send_frames(
    namespace: Namespace,
    device: str,
    frame: bytes,
    progress: Progress,
    *,
    rate: float,
    seconds: float,
    stop: Callable[[], bool] = lambda: False,
) -> Sent:
    """Send the frame, `rate` times a second, out of a device of the namespace."""

    def work() -> Sent:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
            wire.bind((device, 0))

            def run(count: int) -> None:
                for _ in range(count):
                    _put(wire, frame)

            return send_paced(run, progress, seconds=seconds, rate=rate, stop=stop)

    return namespace.apart(work)


def _put(wire: socket.socket, frame: bytes) -> None:
    """Send it once there is room: the CPU that empties the other end may have other work."""
    deadline = time.monotonic() + NO_ROOM_S
    while True:
        try:
            wire.send(frame)
        except OSError as error:
            if error.errno != errno.ENOBUFS or time.monotonic() >= deadline:
                raise
            time.sleep(LONGEST_WAIT_S)
        else:
            return
