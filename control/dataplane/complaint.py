# SPDX-License-Identifier: Apache-2.0
"""What the compiler and the verifier say, condensed to cause and place."""

import re

from valkyrie.control.errors import DataplaneError

COMPILER = re.compile(r"^(?P<file>[^:\s]+):(?P<line>\d+):\d+: (?:fatal )?(?:error|warning): (?P<message>.*)$")
INSTRUCTION = re.compile(r"^\s*\d+: \([0-9a-f]{2}\) ")
SOURCE = re.compile(r"^; (?P<text>.*?)(?: @ (?P<file>[^:@\s]+):(?P<line>\d+))?$")
TOO_LARGE = re.compile(r"Program\s+too large \((\d+) insns\)")
STATISTICS = re.compile(r"^(processed \d+ insns|verification time|stack depth|max_states)")
STATE = re.compile(r"^(\d+: )?(R\d+|from \d+ to \d+|last_idx|regs=|parent |propagating|mark_precise|func#)")
CUT = 300
LOG_BYTES = 20_000


class Rejected(DataplaneError):  # noqa: N818 - as the other errors are named
    """The compiler or the verifier refused the program; `log` is the end of what it said."""

    def __init__(self, what: str, hint: str = "", log: str = "") -> None:
        super().__init__(what, hint)
        self.log = log[-LOG_BYTES:]


def compiler(log: str) -> str:
    """The first complaint of the compiler with its place; "" if it has none."""
    for line in log.splitlines():
        found = COMPILER.match(line.strip())
        if found:
            return f"{found['file']} line {found['line']}: {found['message']}"[:CUT]
    return ""


def verifier(log: str) -> str:
    """The verifier's cause, the instruction and, where the program carries it, the source line."""
    if found := TOO_LARGE.search(log):  # BCC's words for every E2BIG, and it keeps the log back
        return f"its {found[1]} instructions are too complex to be proved safe in a million steps"
    cause = instruction = source = ""
    for line in (text.strip() for text in log.splitlines()):
        if not line or line.startswith(("bpf: ", "HINT:", "The invalid")) or STATISTICS.match(line):
            continue
        if found := SOURCE.match(line):
            place = f"{found['file']} line {found['line']}" if found["file"] else ""
            source = ": ".join(part for part in [place, found["text"].strip()] if part)
        elif INSTRUCTION.match(line):
            instruction = line.split(" ; ")[0]
        elif not STATE.match(line):
            cause = line
    where = [f"at instruction {instruction}" if instruction else "", f"in {source}" if source else ""]
    return " ".join(part for part in [cause or "no reason given", *where] if part)[:CUT]
