# SPDX-License-Identifier: Apache-2.0
"""How buckets, values and documents are named in a store. Pure; docs/stores.md shows the layout.

    vk:{edge.7}:b:web:0000<32 hex digits>   a bucket; 7 is its shard
    vk:{edge.7}:owner                       who may sync to this shard
    vk:{edge}:claim                         who may sync at all
    vk:{edge}:doc:state                     a document
    vk:{edge}:part:state:<digest>           what is written of its successor
    vk:{edge}:kv:<key>                      what `set` wrote

`edge` is the appliance's name. The braces are a cluster's hash tag: what lies in one shard lies on one
node, so that one script may touch many buckets; shards spread an appliance over a cluster.
"""

from __future__ import annotations

import re
from zlib import crc32

from valkyrie.adapters.limit import Limit
from valkyrie.control.dataplane.keyname import MAX_OPAQUE_BYTES, Record, opaque, record_of

SHARDS = 16
CALLERS = "_call"  # the group of callers' own limits; no declared limit's name begins so
BANS = "_ban"  # bans made by limits: a bucket whose TAT is the expiry
MAX_KEY_BYTES = MAX_OPAQUE_BYTES


def bucket_of(limit: Limit, key: str) -> str:
    """The bucket that a key means: `web:<36 hex digits>`, of 2 bytes destination port and the 16 of
    struct bucket_key, then `p` for a pair of IPv6 ends. Raises InvalidInput for a key that does not fit.
    """
    if limit.declared and not limit.key.id:
        return name_of(limit.name, record_of(key, limit.key))
    if limit.declared:
        return name_of(limit.name, opaque(key))
    return name_of(CALLERS, opaque(key, limit.name))


def name_of(group: str, record: Record) -> str:
    """The name of a group's bucket: the same for packets and calls."""
    return f"{group}:{record.dport:04x}{record.addr.hex()}{'p' if record.pair6 else ''}"


def record_in(name: str) -> tuple[str, Record]:
    """Group and record of a bucket's name. Raises ValueError for what is none."""
    group, _, text = name.rpartition(":")
    pair6 = text.endswith("p")
    raw = bytes.fromhex(text.removesuffix("p"))
    if not group or len(raw) != 18:
        raise ValueError(f"no bucket's name: {name[:64]!r}")
    return group, Record(int.from_bytes(raw[:2], "big"), raw[2:], pair6)


def appliance_of(name: str | None, host: str) -> str:
    """The appliance's name in the stores: that of the settings, else the host's in the letters allowed."""
    allowed = re.sub(r"[^a-z0-9._-]+", "-", host.lower()).lstrip("._-")[:63]
    return name or allowed or "valkyrie"


def shard_of(bucket: str) -> int:
    """Which shard a bucket's name lies in."""
    return crc32(bucket.encode()) % SHARDS


def bucket_key(appliance: str, bucket: str) -> str:
    return f"vk:{{{appliance}.{shard_of(bucket)}}}:b:{bucket}"


def owner_key(appliance: str, shard: int) -> str:
    return f"vk:{{{appliance}.{shard}}}:owner"


def claim_key(appliance: str) -> str:
    """Who syncs under the appliance's name, beside its documents; the shards have copies."""
    return f"vk:{{{appliance}}}:claim"


def part_key(appliance: str, document: str, digest: str) -> str:
    """What is written of a document's successor."""
    return f"vk:{{{appliance}}}:part:{document}:{digest}"


def document_key(appliance: str, document: str) -> str:
    return f"vk:{{{appliance}}}:doc:{document}"


def value_key(appliance: str, key: str) -> str:
    return f"vk:{{{appliance}}}:kv:{key}"
