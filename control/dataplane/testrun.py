# SPDX-License-Identifier: Apache-2.0
"""Running a program by BPF_PROG_TEST_RUN with every buffer made once: the system call and little else."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

from valkyrie.control.dataplane import bpf
from valkyrie.control.errors import Unavailable

ATTRIBUTES = struct.Struct("=4I2Q4I2QII")
ROOM = 3520
"""What a test run takes at most: a page less headroom and tailroom."""

# With the interpreter's lock held: a run takes less than handing the lock over.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long)
_syscall.restype = ctypes.c_long


class Run:
    """A program and the packet that it is run on, whose memory is `packet`: what is written there
    before `go` is the request, what lies there afterwards the answer. For one thread.
    """

    __slots__ = ("_attributes", "_held", "_lengths", "_number", "_place", "fd", "packet")

    def __init__(self, fd: int) -> None:
        """Owns the descriptor from here on."""
        number = bpf.SYSCALL.get(platform.machine())
        if number is None:
            raise Unavailable(f"no BPF on machine type {platform.machine()}", "use x86_64 or aarch64")
        self.fd = fd
        self.packet = bytearray(ROOM)
        self._number = number
        self._held = (ctypes.c_char * ROOM).from_buffer(self.packet)
        at = ctypes.addressof(self._held)
        self._attributes = ctypes.create_string_buffer(
            ATTRIBUTES.pack(fd, 0, ROOM, ROOM, at, at, 0, 0, 0, 0, 0, 0, 0, 0), ATTRIBUTES.size
        )
        self._place = ctypes.addressof(self._attributes)
        self._lengths = memoryview(self._attributes).cast("B").cast("I")

    def go(self, length: int) -> None:
        """Run on the first `length` bytes of the packet, at least 14. Raises OSError."""
        lengths = self._lengths
        lengths[2] = lengths[3] = length
        if _syscall(self._number, bpf.PROG_TEST_RUN, self._place, ATTRIBUTES.size) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """Close the descriptor. Again: nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
