# SPDX-License-Identifier: Apache-2.0
"""Count packets behind XDP by the kernel's packet sockets, independently of the program's counters.

A socket with a filter in the kernel counts what matches it; nothing is read, so a count stays exact
at any rate. Packets are told apart by protocol and destination port, or by ICMP's type; IPv4 without
options, IPv6 without extension headers.
"""

import ctypes
import socket
import struct
from typing import Self

ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23
SO_ATTACH_FILTER = 26
_LOAD_BYTE, _LOAD_HALF, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x30, 0x28, 0x15, 0x45, 0x06
_INSTRUCTION = struct.Struct("=HBBI")
TCP_FLAGS = 47  # offset in a frame without VLAN, IPv4


def port_filter(version: int, protocol: int, port: int, flag: int = 0) -> bytes:
    """Classic BPF: IPv4 or IPv6 frames of this protocol and destination port.

    `flag` is a TCP flag that must be set (IPv4 alone); 0 for none.
    """
    ethertype, protocol_at, port_at = (0x0800, 23, 36) if version == 4 else (0x86DD, 20, 56)
    tests = [
        (_LOAD_HALF, 12, _JUMP_EQUAL, ethertype),
        (_LOAD_BYTE, protocol_at, _JUMP_EQUAL, protocol),
        (_LOAD_HALF, port_at, _JUMP_EQUAL, port),
    ]
    if flag:
        tests.append((_LOAD_BYTE, TCP_FLAGS, _JUMP_SET, flag))
    code = b""
    for position, (load, offset, jump, value) in enumerate(tests):
        to_refuse = 2 * (len(tests) - position) - 1
        code += _INSTRUCTION.pack(load, 0, 0, offset) + _INSTRUCTION.pack(jump, 0, to_refuse, value)
    return code + _INSTRUCTION.pack(_RETURN, 0, 0, 1) + _INSTRUCTION.pack(_RETURN, 0, 0, 0)


class Count:
    """How many packets that match a filter came out of a device; make it inside the namespace."""

    def __init__(self, device: str, code: bytes) -> None:
        self._total = 0
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        held = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("HxxxxxxP", len(code) // _INSTRUCTION.size, ctypes.addressof(held))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._socket.bind((device, ETH_P_ALL))

    def read(self) -> int:
        """The count so far; the kernel's own starts anew with each reading, as 32 bits."""
        packets, _ = struct.unpack("=II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._total += packets
        return self._total

    def close(self) -> None:
        """Stop counting."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
