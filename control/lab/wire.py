# SPDX-License-Identifier: Apache-2.0
"""Put frames on the wire one by one, by a packet socket; a few thousand a second."""

import socket
from collections.abc import Callable

from valkyrie.control.lab.netns import Namespace
from valkyrie.control.lab.pace import Progress, Sent, send_paced


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
                    wire.send(frame)

            return send_paced(run, progress, seconds=seconds, rate=rate, stop=stop)

    return namespace.apart(work)
