# SPDX-License-Identifier: Apache-2.0
"""Take the program off every NIC and unpin it: `python -m valkyrie.control.host.detach`.

For uninstalling, when the daemon has ended. The pins lie where the settings say; settings that cannot be read
keep nobody from uninstalling. Somebody else's programs stay where they are.
"""

import sys
from pathlib import Path

from valkyrie.control.config import Settings, load_settings
from valkyrie.control.dataplane import attach, migrate, pins
from valkyrie.control.errors import InvalidInput, ValkyrieError


def detach_all(pin_dir: Path) -> list[str]:
    """The names of the NICs that were let go. Nothing happens if nothing is pinned."""
    migrate.recover(pin_dir)
    if not pins.pinned(pin_dir):
        return []
    ours = [nic.name for nic in attach.nics(pin_dir) if nic.program is not None and nic.program.ours]
    for name in ours:
        attach.detach(name, pin_dir)
    for place in (pin_dir, migrate.aside(pin_dir, "old"), migrate.aside(pin_dir, "next")):
        pins.remove(place)
    return ours


def pin_dir_of_settings() -> Path:
    try:
        return load_settings().pin_dir
    except InvalidInput as error:
        print(f"{error}; looking where pins usually lie", file=sys.stderr)
        return Settings().pin_dir


def main() -> int:
    """Detach and say what was detached; the exit status is the error's."""
    try:
        for name in detach_all(pin_dir_of_settings()):
            print(f"{name}: detached, its packets pass unpoliced")
    except ValkyrieError as error:
        print(f"error: {error.what}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
