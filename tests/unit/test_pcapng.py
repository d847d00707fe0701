# SPDX-License-Identifier: Apache-2.0
"""A pcapng file says of each packet when, where, what and why, as tshark reads it."""

import base64
import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from valkyrie.control.capture import pcapng
from valkyrie.control.cli.capture import File

TSHARK = shutil.which("tshark")
TIME = 1_700_000_000_123_456_789
FRAME: dict[str, Any] = {
    "time_ns": TIME,
    "nic": "eth0",
    "length": 90,
    "data": "",
    "verdict": "drop",
    "reason": "limit",
    "limit": "web",
}
UDP = bytes.fromhex(
    "ffffffffffff0200000000010800" "4500002800000000401100000a000001c0000201"
    "10040035001400005858585858585858"
    "58585858"
)  # fmt: skip


def written() -> bytes:
    out = BytesIO()
    file = File(out, "what was asked for: ünïcödé", 256)
    for frame in (FRAME, {**FRAME, "nic": "eth1", "time_ns": TIME + 1, "verdict": "would drop"}, FRAME):
        file.add({**frame, "data": base64.b64encode(UDP).decode()})
    return out.getvalue()


def fields(path: Path, *names: str) -> list[list[str]]:
    assert TSHARK is not None
    wanted = [word for name in names for word in ("-e", name)]
    command = [TSHARK, "-n", "-r", str(path), "-T", "fields", "-E", "separator=|", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [line.split("|") for line in done.stdout.splitlines()]


@pytest.mark.skipif(TSHARK is None, reason="tshark is not installed")
def test_tshark_reads_time_nic_length_and_the_reason_as_comment(tmp_path: Path) -> None:
    path = tmp_path / "some.pcapng"
    path.write_bytes(written())
    found = fields(
        path, "frame.time_epoch", "frame.interface_name", "frame.len", "frame.cap_len", "udp.dstport"
    )
    times = ["1700000000.123456789", "1700000000.123456790", "1700000000.123456789"]
    assert found == [
        [time, nic, "90", str(len(UDP)), "53"]
        for time, nic in zip(times, ("eth0", "eth1", "eth0"), strict=True)
    ]
    comments = fields(path, "frame.comment")
    assert comments == [
        ["verdict=drop reason=limit limit=web"],
        ["verdict=would-drop reason=limit limit=web"],
        ["verdict=drop reason=limit limit=web"],
    ]


def test_blocks_are_whole_and_bounded() -> None:
    raw, kinds = written(), []
    while raw:
        kind, length = (int.from_bytes(raw[at : at + 4], "little") for at in (0, 4))
        assert length % 4 == 0
        assert int.from_bytes(raw[length - 4 : length], "little") == length
        kinds.append(kind)
        raw = raw[length:]
    section, nic, packet = pcapng.SECTION, pcapng.INTERFACE, pcapng.PACKET
    assert kinds == [section, nic, packet, nic, packet, packet]
    assert len(pcapng.section("ü" * 100_000, "x")) < pcapng.MOST_COMMENT + 100


def test_what_was_asked_for_stands_in_the_section() -> None:
    assert "what was asked for: ünïcödé".encode() in written()
