# SPDX-License-Identifier: Apache-2.0
"""Take the program off every NIC and unpin it: `python -m valkyrie.control.host.detach [PIN-DIR]`.

For uninstalling, when the daemon has ended. Somebody else's programs stay where they are.
"""

import sys
from pathlib import Path

from valkyrie.control.dataplane import attach, pins
from valkyrie.control.errors import ValkyrieError

PIN_DIR = Path("/sys/fs/bpf/valkyrie")


def detach_all(pin_dir: Path) -> list[str]:
    """The names of the NICs that were let go. Nothing happens if nothing is pinned."""
    if not pins.pinned(pin_dir):
        return []
    ours = [nic.name for nic in attach.nics(pin_dir) if nic.program is not None and nic.program.ours]
    for name in ours:
        attach.detach(name, pin_dir)
    pins.remove(pin_dir)
    return ours


def main(pin_dir: str = str(PIN_DIR)) -> int:
    """Detach and say what was detached; the exit status is the error's."""
    try:
        for name in detach_all(Path(pin_dir)):
            print(f"{name}: detached, its packets pass unpoliced")
    except ValkyrieError as error:
        print(f"error: {error.what}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
