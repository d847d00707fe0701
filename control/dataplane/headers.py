# SPDX-License-Identifier: Apache-2.0
"""The header tree that BCC compiles against.

BCC asks for the running kernel's headers and breaks when they do not fit. An XDP program needs
only the UAPI, which the C library's development package brings, so a small tree of links to it,
with a few files of our own, serves every kernel.
"""

import mmap
import platform
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkyrie.control.errors import Unavailable

TYPES = """\
#ifndef VALKYRIE_LINUX_TYPES_H
#define VALKYRIE_LINUX_TYPES_H
#include <asm/types.h>
#include <linux/posix_types.h>
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;
#define __bitwise
typedef __u16 __le16;
typedef __u16 __be16;
typedef __u32 __le32;
typedef __u32 __be32;
typedef __u64 __le64;
typedef __u64 __be64;
typedef __u16 __sum16;
typedef __u32 __wsum;
typedef _Bool bool;
typedef int pid_t;
typedef unsigned long size_t;
typedef unsigned long uintptr_t;
#define __aligned_u64 __u64 __attribute__((aligned(8)))
#define __aligned_be64 __be64 __attribute__((aligned(8)))
#define __aligned_le64 __le64 __attribute__((aligned(8)))
typedef unsigned int __poll_t;
#endif
"""

EMPTY = ""  # BCC brings its own
# BCC searches arch/*/include, include, arch/*/include/uapi and include/uapi in this order.
OWN = {
    "include/linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "include/linux/types.h": TYPES,
    "include/linux/bpf.h": EMPTY,
    "include/linux/log2.h": EMPTY,
    "include/asm/page.h": f"#define PAGE_SIZE {mmap.PAGESIZE}\n",
    "arch/{arch}/include/uapi/linux/types.h": TYPES,
    "arch/{arch}/include/uapi/linux/bpf.h": EMPTY,
}
ARCHITECTURES = {
    "x86_64": "x86",
    "aarch64": "arm64",
    "riscv64": "riscv",
    "ppc64le": "powerpc",
    "s390x": "s390",
}


def _asm(include: Path) -> Path:
    """The architecture's headers: in the multiarch folder on Debian, plain elsewhere."""
    triplet = sysconfig.get_config_var("MULTIARCH") or ""
    for folder in (include / triplet / "asm", include / "asm"):
        if (folder / "types.h").exists():
            return folder
    raise Unavailable(
        f"the C library's kernel headers are missing: no asm/types.h under {include}",
        "install them: apt install linux-libc-dev",
    )


def check(include: Path) -> None:
    """Raise Unavailable if the UAPI headers are not installed there."""
    _asm(include)
    if not (include / "linux" / "if_ether.h").exists():
        raise Unavailable(
            f"the C library's kernel headers are missing: no linux/if_ether.h under {include}",
            "install them: apt install linux-libc-dev",
        )


def fill(tree: Path, include: Path) -> None:
    """Make the tree in an empty directory out of `include` (as a rule /usr/include): whole folders are
    linked, and the few files of our own stand before them in the order of search.

    Raises Unavailable if the UAPI headers are not installed.
    """
    check(include)
    machine = platform.machine()
    for name, text in OWN.items():
        path = tree / name.format(arch=ARCHITECTURES.get(machine, machine))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    uapi = tree / "include" / "uapi"
    uapi.mkdir()
    (uapi / "linux").symlink_to(include / "linux")
    (uapi / "asm").symlink_to(_asm(include))
    (uapi / "asm-generic").symlink_to(include / "asm-generic")


@contextmanager
def header_tree(include: Path = Path("/usr/include")) -> Iterator[Path]:
    """A temporary tree to name in BCC_KERNEL_SOURCE; removed at the end."""
    with tempfile.TemporaryDirectory(prefix="valkyrie-headers-") as folder:
        fill(Path(folder), include)
        yield Path(folder)
