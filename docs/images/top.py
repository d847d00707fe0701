# SPDX-License-Identifier: Apache-2.0
"""docs/images/top.svg, a frame of the real `valkyrie-ctl top` while the demo's traffic and a flood come in:
`sudo .venv/bin/python docs/images/top.py`.
"""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import terminal
from rich.text import Text

from valkyrie.control.lab import demo
from valkyrie.control.lab.scenario import FLOOD, STREAMS

PICTURE = Path(__file__).with_suffix(".svg")
WIDTH, HEIGHT = 64, 48
SETTINGS = "events: {sample: 256, rate: 1000}\n"  # of so many drops none is held back
# All by the kernel's generator, and no more than leaves the machine its breath.
TRAFFIC = [*(replace(one, scapy=False) for one in STREAMS), replace(FLOOD, rate=150_000)]
SENT_S = 24.0
LOOK_S = (16.0, 21.0)  # since the traffic began: when top starts, and when its last frame is taken
REDRAW = re.compile(r"(?:\r*\x1b\[(?:2K|1A))+")  # how the live display goes back to its first line


def frames(lab: demo.Lab) -> list[str]:
    """What `valkyrie-ctl top` draws on a terminal, frame by frame, with its colours."""
    time.sleep(LOOK_S[0])
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environment = {**os.environ, "VALKYRIE_SOCKET": lab.daemon.client.path, "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "valkyrie.control.cli.main", "top", "--count", "12"]
    with subprocess.Popen(command, env=environment, stdin=there, stdout=there, stderr=there) as process:
        os.close(there)
        ended = threading.Timer(LOOK_S[1] - LOOK_S[0], process.send_signal, (signal.SIGINT,))
        ended.start()
        told = b""
        while part := _read(here):
            told += part
        ended.cancel()
    os.close(here)
    return REDRAW.split(told.decode().replace("\r\n", "\n"))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other end is closed: so a terminal says its end
        return b""


def main() -> int:
    """Draw the last frame that was drawn whole."""
    drawn: list[str] = []
    with ExitStack() as stack:
        lab = demo.build(stack, SETTINGS)
        lab.daemon.ctl("attach", demo.NIC)
        for stream in TRAFFIC:
            if stream.limit:
                lab.daemon.ctl("limits", "set", stream.name, *stream.limit)
        watcher = threading.Thread(target=lambda: drawn.extend(frames(lab)))
        watcher.start()
        demo.run(lab, TRAFFIC, SENT_S, "All at once", lambda *_: None)
        watcher.join()
    console = terminal.recorder(WIDTH)
    console.print("$ valkyrie-ctl top", style="bold", highlight=False)
    console.print(
        Text.from_ansi([frame for frame in drawn if "TALKER" in frame][-2].replace("\r", "").strip("\n"))
    )
    terminal.write(console, "valkyrie-ctl top", PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
