# SPDX-License-Identifier: Apache-2.0
"""What a driver says of a NIC of the current network namespace: its name and its offloads."""

import ctypes
import fcntl
import os
import socket
import struct

SIOCETHTOOL, SIOCGIFMTU = 0x8946, 0x8921
GET_DRIVER, GET_CHANNELS, GET_STRINGS, GET_SET_SIZE, GET_FEATURES = 0x03, 0x3C, 0x1B, 0x37, 0x3A
FEATURE_NAMES = 4
NAME_BYTES = 32
MAX_FEATURES = 256
NIC_NAME_BYTES = 16


def _ask(nic: str, question: bytes, size: int) -> bytes | None:
    """The driver's answer; None if it has none."""
    buffer = ctypes.create_string_buffer(question.ljust(size, b"\0"), size)
    request = struct.pack("16sP8x", os.fsencode(nic)[: NIC_NAME_BYTES - 1], ctypes.addressof(buffer))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        try:
            fcntl.ioctl(channel, SIOCETHTOOL, request)
        except OSError:
            return None  # the driver does not answer this, or the NIC has gone
    return buffer.raw


def driver(nic: str) -> str:
    """The driver's name; "" if it does not say."""
    answer = _ask(nic, struct.pack("=I", GET_DRIVER), 196)
    return answer[4:36].split(b"\0", 1)[0].decode("ascii", "replace") if answer else ""


def queues(nic: str) -> tuple[int, int]:
    """Receive queues in use, and how many there could be; (1, 1) if the driver does not say."""
    answer = _ask(nic, struct.pack("=I", GET_CHANNELS), 36)
    if answer is None:
        return 1, 1
    _, most, _, _, most_combined, used, _, _, combined = struct.unpack("=9I", answer)
    return max(used + combined, 1), max(most + most_combined, 1)


def mtu(nic: str) -> int:
    """Bytes of the largest IP packet. Raises OSError if the NIC has gone."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        answer = fcntl.ioctl(channel, SIOCGIFMTU, struct.pack("16si20x", os.fsencode(nic)[:15], 0))
    return int(struct.unpack_from("=16si", answer)[1])


def features(nic: str) -> dict[str, bool]:
    """Offloads by the kernel's names (rx-lro, rx-gro-hw, ...) and whether they are on."""
    sized = _ask(nic, struct.pack("=IIQ", GET_SET_SIZE, 0, 1 << FEATURE_NAMES), 20)
    count = min(struct.unpack_from("=I", sized, 16)[0], MAX_FEATURES) if sized else 0
    names = _ask(nic, struct.pack("=III", GET_STRINGS, FEATURE_NAMES, count), 12 + count * NAME_BYTES)
    blocks = (count + 31) // 32
    bits = _ask(nic, struct.pack("=II", GET_FEATURES, blocks), 8 + 16 * blocks)
    if names is None or bits is None:
        return {}
    found: dict[str, bool] = {}
    for index in range(count):
        start = 12 + index * NAME_BYTES
        name = names[start : start + NAME_BYTES].split(b"\0", 1)[0].decode("ascii", "replace")
        (active,) = struct.unpack_from("=I", bits, 8 + 16 * (index // 32) + 8)
        found[name] = bool(active >> (index % 32) & 1)
    return found
