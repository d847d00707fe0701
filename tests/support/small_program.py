# SPDX-License-Identifier: Apache-2.0
"""A small program over the real maps: quick to build, and it says what it was asked."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from valkyrie.control import abi
from valkyrie.control.dataplane import bpf, pins, source
from valkyrie.control.dataplane.maps import Dataplane

HEAD = """\
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include "abi.h"
#include "maps.h"
static __always_inline struct control *state(void) {
  u32 zero = 0;
  return control.lookup(&zero);
}
"""
BODY = """\
int police(struct xdp_md *ctx) {
  struct control *c = state();
  struct test_control *t = (void *)(long)ctx->data_meta;
  u32 index = c ? c->active & 1 : 0;
  struct ruleset *r = rulesets.lookup(&index);
  if (!c || !r)
    return XDP_PASS;
  if ((void *)(t + 1) <= (void *)(long)ctx->data && t->magic == c->test_magic) {
    t->reason = REASON_LIMIT;
    t->slot = ctx->ingress_ifindex;
  }
  struct event *e = events.ringbuf_reserve(sizeof(*e));
  if (e) {
    __builtin_memset(e, 0, sizeof(*e));
    e->sport = ctx->data_end - ctx->data;
    e->reason = REASON_BAN;
    e->slot = NO_SLOT;
    events.ringbuf_submit(e, 0);
  }
  return r->malformed_drop ? XDP_DROP : XDP_PASS;
}
"""
SIZES = source.Sizes(64, 256, source.possible_cpus())
FRAME = bytes(64)


def write(folder: Path, body: str) -> Path:
    """The program's main file beside the project's own headers."""
    for name in ("abi.h", "maps.h"):
        shutil.copy(source.MAIN.parent / name, folder / name)
    path = folder / "small.bpf.c"
    path.write_text(HEAD + body)
    return path


def ruleset(serial: int, *, drop: bool = False, nodes: int = 1) -> Any:
    """A ruleset of nothing but a header and some zero nodes."""
    header = np.zeros((), abi.RULESET)
    header["serial"], header["malformed_drop"] = serial, drop
    return SimpleNamespace(
        header=header,
        limits=np.zeros(0, abi.LIMIT),
        plans=np.zeros(1, abi.PLAN),
        nodes=np.zeros(nodes, abi.NODE),
        classes=np.zeros(1, abi.BITMAP),
        fields=np.zeros(1, abi.FIELD_BLOCK),
        guards=np.zeros(1, abi.GUARD),
    )


def verdict(dp: Dataplane) -> int:
    return bpf.test_run(dp.fd(pins.PROGRAM), FRAME)[0]
