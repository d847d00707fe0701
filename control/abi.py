# SPDX-License-Identifier: Apache-2.0
"""The mirror of bpf/abi.h: sizes, constants and the layout of every map value as numpy types.

All integers are in host byte order. A unit test compiles the header and compares.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from valkyrie.control.enums import Action, Dimension, Embedding, Fragment, Guard, KeyField, Measure, Reason

__all__ = ["Action", "Dimension", "Embedding", "Fragment", "Guard", "KeyField", "Measure", "Reason"]

ABI_VERSION: Final = 4

# Defaults of what a build may choose.
BUCKET_SETS: Final = 131072
MAX_CPUS: Final = 2
MAX_NODES: Final = 262144
CONTINUE_AT: Final = 0

CONTINUATIONS: Final = 1024
TIME_SHIFT: Final = 6
WAYS: Final = 8
SET_LOCKS: Final = 4096
MAX_LIMITS: Final = 256
BITMAP_WORDS: Final = 4
MAX_CLASSES: Final = 65536
MAX_PLANS: Final = 131072
MAX_GUARDS: Final = 131072
LEASES: Final = 1024
EVENT_RING_BYTES: Final = 1048576
NO_SLOT: Final = 0xFFFF

REF_LEAF: Final = 0x80000000
REF_LOW: Final = 0x40000000
REF_MASK: Final = 0x3FFFFFFF
NODE_KEYS: Final = 7
NODE_CHILDREN: Final = 8
TREE_DEPTH: Final = 16

EMBEDDINGS: Final = 2
PLAN_EMBEDDED: Final = 0x20000000

FIELD_PROTOCOL: Final = 0
FIELD_FRAGMENT: Final = 256
FIELD_DSCP: Final = 260
FIELD_VERSION: Final = 324
FIELD_TCP_FLAGS: Final = 328
FIELD_ICMP: Final = 640
FIELD_VLAN: Final = 1280
FIELD_INTERFACE: Final = 5440
FIELD_LENGTH: Final = 5504
FIELD_SPORT: Final = 71040
FIELD_DPORT: Final = 136640
FIELDS: Final = 202240
FIELD_BLOCK_CLASSES: Final = 64  # FIELD_BLOCK in the header; here that name is the type
FIELD_BLOCKS: Final = FIELDS // FIELD_BLOCK_CLASSES

NO_TCP_FLAGS: Final = 256
NO_ICMP: Final = 512
NO_VLAN: Final = 4096
NO_PORTS: Final = 65536
LATER_FRAGMENT: Final = 65537
MAX_NICS: Final = 64

CAPTURES: Final = 4
OBSERVATIONS: Final = 4
WATCHES: Final = 8
CAPTURE_BYTES: Final = 256
CAPTURE_RING_BYTES: Final = 1048576
OBSERVE_RING_BYTES: Final = 1048576
CAPTURE_DROPPED: Final = 1
CAPTURE_PASSED: Final = 2
CAPTURE_SHADOWED: Final = 4

REASONS: Final = len(Reason)
MAX_EXTENSIONS: Final = 8
CAS_TRIES: Final = 16
UID_BAN: Final = 32767
UID_CALL: Final = 32766
UID_MASK: Final = 0x7FFF
UID_IPV6_PAIR: Final = 0x8000
TEST_EXPLAIN: Final = 1

CALL_ENTRIES: Final = 64
CALL_CONSUME: Final = 1
CALL_OWN: Final = 2
CALL_RESTORE: Final = 3
CALL_DONE: Final = 1
CALL_STALE: Final = 2
CALL_RETIRED: Final = 3
CALL_WRONG: Final = 4
CALL_FINGERPRINT: Final = 1
CALL_6TO4: Final = 2
CALL_TAKEN: Final = 1
CALL_REFUSED: Final = 2
CALL_CONTENDED: Final = 3

VALUE_BYTES: Final = 1024
VALUE_LOCKS: Final = 1024
VALUE_GET: Final = 1
VALUE_SET: Final = 2
VALUE_DELETE: Final = 3
VALUE_ADD: Final = 4
VALUE_SWEEP: Final = 5
VALUE_DONE: Final = 1
VALUE_ABSENT: Final = 2
VALUE_FULL: Final = 3
VALUE_NO_INTEGER: Final = 4
VALUE_CONTENDED: Final = 5
VALUE_WRONG: Final = 6
VALUE_RETIRED: Final = 7
VALUE_IS_BYTES: Final = 0
VALUE_IS_INTEGER: Final = 1


def _struct(*fields: tuple[Any, ...]) -> np.dtype[np.void]:
    return np.dtype(list(fields), align=True)


NODE: Final = _struct(("key", "u8", NODE_KEYS), ("reserved", "u8"), ("child", "u4", NODE_CHILDREN))
FIELD_BLOCK: Final = _struct(("class_of", "u2", FIELD_BLOCK_CLASSES))
BITMAP: Final = _struct(("word", "u8", BITMAP_WORDS))
PLAN: Final = _struct(("mult", "u8"), ("tau", "u8"), ("batch", "u8"), ("shift", "u4"), ("reserved", "u4"))
LIMIT: Final = _struct(
    ("plan", PLAN),
    ("mask4", "u8", 4),
    ("mask6", "u8", 4),
    ("ban_ns", "u8"),
    ("override_root", "u4"),
    ("uid", "u2"),
    ("slot", "u2"),
    ("action", "u1"),
    ("measure", "u1"),
    ("key_fields", "u1"),
    ("override_dst", "u1"),
    ("override6_root", "u4"),
    ("fingerprint", "u8"),
)
GUARD: Final = _struct(("exempt_until", "u8"), ("ban_until", "u8"), ("flags", "u4"), ("reserved", "u4"))
RULESET: Final = _struct(
    ("limits", "u4"),
    ("dimensions", "u4"),
    ("src4_root", "u4"),
    ("src6_root", "u4"),
    ("dst4_root", "u4"),
    ("dst6_root", "u4"),
    ("guard4_root", "u4"),
    ("guard6_root", "u4"),
    ("malformed_drop", "u4"),
    ("table_full_open", "u4"),
    ("kernel_bans", "u4"),
    ("event_sample", "u4"),
    ("event_rate", "u4"),
    ("positions", "u4"),
    ("serial", "u8"),
    ("observers", "u4"),
    ("src_embedded_class", "u2", EMBEDDINGS),
    ("dst_embedded_class", "u2", EMBEDDINGS),
    ("reserved", "u4"),
)
CONTROL: Final = _struct(
    ("abi", "u4"), ("active", "u4"), ("secret", "u8", 2), ("test_magic", "u8"), ("capturing", "u8")
)
BUCKET: Final = _struct(("fingerprint", "u8"), ("tat", "u8"))
BUCKET_SET: Final = _struct(("bucket", BUCKET, WAYS))
BUCKET_KEY: Final = _struct(("uid", "u2"), ("dport", "u2"), ("addr", "u1", 16))
BUCKET_KEY_SET: Final = _struct(("key", BUCKET_KEY, WAYS))
LEASE: Final = _struct(("fingerprint", "u8"), ("left", "u8"), ("valid_until", "u8"), ("reserved", "u8"))
LIMIT_STATS: Final = _struct(
    ("matched", "u8"),
    ("passed", "u8"),
    ("dropped", "u8"),
    ("shadow_dropped", "u8"),
    ("matched_bytes", "u8"),
    ("dropped_bytes", "u8"),
    ("shadow_dropped_bytes", "u8"),
    ("undone_bytes", "u8"),
    ("leased", "u8"),
    ("reserved", "u8", 7),
)
REASON_STATS: Final = _struct(("packets", "u8"), ("bytes", "u8"))
TABLE_STATS: Final = _struct(
    ("inserted", "u8"),
    ("evicted_live", "u8"),
    ("contended", "u8"),
    ("events_sent", "u8"),
    ("events_lost", "u8"),
    ("events_limited", "u8"),
    ("drops_left", "u8"),
    ("event_window", "u8"),
    ("event_count", "u8"),
    ("bans", "u8"),
    ("reserved", "u8", 6),
)
EVENT: Final = _struct(
    ("time", "u8"),
    ("src", "u8", 2),
    ("dst", "u8", 2),
    ("ifindex", "u4"),
    ("sport", "u2"),
    ("dport", "u2"),
    ("length", "u2"),
    ("slot", "u2"),
    ("protocol", "u1"),
    ("reason", "u1"),
    ("shadow", "u1"),
    ("reserved", "u1", 5),
)
CAPTURE: Final = _struct(
    ("id", "u8"),
    ("until", "u8"),
    ("src", "u8", 2),
    ("mask", "u8", 2),
    ("verdicts", "u4"),
    ("reasons", "u4"),
    ("slot", "u4"),
    ("sample", "u4"),
    ("rate", "u4"),
    ("snaplen", "u4"),
)
OBSERVATION: Final = _struct(("id", "u8"), ("until", "u8"), ("mask", "u8"), ("thin", "u8"))
WATCH: Final = _struct(("capture", CAPTURE, CAPTURES), ("observation", OBSERVATION, OBSERVATIONS))
WATCH_STATS: Final = _struct(
    ("seen", "u8"),
    ("sent", "u8"),
    ("lost", "u8"),
    ("limited", "u8"),
    ("left", "u8"),
    ("window", "u8"),
    ("count", "u8"),
    ("reserved", "u8"),
)
CAPTURED: Final = _struct(
    ("time", "u8"),
    ("id", "u8"),
    ("ifindex", "u4"),
    ("length", "u4"),
    ("slot", "u2"),
    ("bytes", "u2"),
    ("reason", "u1"),
    ("verdict", "u1"),
    ("reserved", "u1", 2),
    ("data", "u8", CAPTURE_BYTES // 8),
)
OBSERVED: Final = _struct(
    ("time", "u8"), ("fingerprint", "u8"), ("id", "u8"), ("tokens", "u4"), ("thin", "u4")
)
EXPLANATION: Final = _struct(
    ("cost", "u8"),
    ("level", "u8"),
    ("tau", "u8"),
    ("fingerprint", "u8"),
    ("matched", "u1"),
    ("conforms", "u1"),
    ("reserved", "u1", 6),
)
TEST_CONTROL: Final = _struct(
    ("magic", "u8"), ("now", "u8"), ("flags", "u4"), ("reason", "u2"), ("slot", "u2")
)
CALL: Final = _struct(
    ("magic", "u8"),
    ("now", "u8"),
    ("mult", "u8"),
    ("tau", "u8"),
    ("shift", "u4"),
    ("uid", "u2"),
    ("position", "u2"),
    ("count", "u4"),
    ("op", "u1"),
    ("told", "u1"),
    ("at", "u1"),
    ("reserved", "u1"),
)
CALL_ENTRY: Final = _struct(
    ("src", "u8", 2),
    ("dst", "u8", 2),
    ("sport", "u2"),
    ("dport", "u2"),
    ("protocol", "u1"),
    ("flags", "u1"),
    ("reserved", "u2"),
    ("amount", "u8"),
)
CALL_ANSWER: Final = _struct(
    ("level", "u8"),
    ("cost", "u8"),
    ("mult", "u8"),
    ("tau", "u8"),
    ("shift", "u4"),
    ("verdict", "u4"),
    ("amount", "u8"),
)
VALUE_KEY: Final = _struct(("word", "u8", 4))
VALUE: Final = _struct(
    ("expires", "u8"), ("integer", "i8"), ("length", "u4"), ("kind", "u4"), ("data", "u8", VALUE_BYTES // 8)
)
VALUE_CALL: Final = _struct(
    ("key", "u8", 4),
    ("magic", "u8"),
    ("now", "u8"),
    ("lasts", "u8"),
    ("integer", "i8"),
    ("length", "u4"),
    ("op", "u1"),
    ("told", "u1"),
    ("kind", "u1"),
    ("reserved", "u1"),
)
