# SPDX-License-Identifier: Apache-2.0
"""From a bucket's record to the entry of a call (struct call_entry) that means the same bucket. Pure.

The program masks addresses itself. A wide IPv6 pair is known by its fingerprint alone. Which pairs are
wide is told by the limit's key, and by the source's half being 0, which is how the kernel writes an IPv4
source beside an IPv6 destination. Not told apart are the other mixture, and a wide pair whose low halves
are all 0: such an entry means a bucket that no packet has.
"""

from __future__ import annotations

import struct

from valkyrie.control import abi
from valkyrie.control.dataplane.keyname import Record, paired
from valkyrie.control.key import KeySpec
from valkyrie.control.prefix import MAPPED

ENTRY = struct.Struct("=16s16sHHBBHQ")
HALF = bytes(8)
NONE = bytes(16)


def entry_of(record: Record, spec: KeySpec, amount: int, flags: int = 0) -> bytes:
    """The entry for a bucket of a limit with this key: `amount` tokens, or time units to restore."""
    addr = record.addr
    if spec.id or not paired(spec):
        if spec.dst4 is not None:
            return ENTRY.pack(NONE, addr, 0, record.dport, 0, flags, 0, amount)
        return ENTRY.pack(addr, NONE, 0, record.dport, 0, flags, 0, amount)
    if record.pair6:
        return _pair6(record, spec, amount, flags)
    src = MAPPED + addr[:4] if spec.src4 is not None else NONE
    dst = MAPPED + addr[4:8] if spec.dst4 is not None else NONE
    sport = int.from_bytes(addr[8:10], "big")
    return ENTRY.pack(src, dst, sport, record.dport, addr[10], flags, 0, amount)


def _pair6(record: Record, spec: KeySpec, amount: int, flags: int) -> bytes:
    left, right = record.addr[:8], record.addr[8:]
    wide = spec.sport or spec.proto or max(spec.src6 or 0, spec.dst6 or 0) > 64
    if wide or left == HALF:
        fingerprint = struct.pack("=Q", int.from_bytes(right, "big"))
        flags |= abi.CALL_FINGERPRINT
        return ENTRY.pack(left + HALF, fingerprint + HALF, 0, record.dport, 0, flags, 0, amount)
    return ENTRY.pack(left + HALF, right + HALF, 0, record.dport, 0, flags, 0, amount)
