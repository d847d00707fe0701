# SPDX-License-Identifier: Apache-2.0
"""The lab itself: what the generator sends arrives, and is counted exactly."""

import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from valkyrie.control.errors import DataplaneError
from valkyrie.control.lab.compile import compiled
from valkyrie.control.lab.counting import Count, port_filter
from valkyrie.control.lab.generator import Generator, Sources
from valkyrie.control.lab.netns import Namespace, join
from valkyrie.control.lab.pace import Progress, send_paced
from valkyrie.control.lab.wire import send_frames

PASS_ALL = "int pass_all(struct xdp_md *ctx) { return XDP_PASS; }"
UDP_PROTOCOL = 17
SO_RCVBUFFORCE = 33


@dataclass(frozen=True)
class Wire:
    inside: Namespace
    generator: Generator
    header: Packet

    def frame(self, packet: Packet) -> bytes:
        return bytes(self.header / packet)


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    source = Path(tmp_path_factory.mktemp("bpf")) / "pass_all.c"
    source.write_text(PASS_ALL)
    with Namespace() as outside, Namespace() as inside, compiled(source, ["pass_all"]) as receiver:
        near, far = join(outside, "wire", inside, "eth0")

        def attach() -> None:
            with IPRoute() as ip:
                ip.link("set", index=far[0], xdp_fd=receiver.programs["pass_all"])

        inside.call(attach)
        with Generator(outside, near[0]) as generator:
            yield Wire(inside, generator, Ether(src=near[1], dst=far[1]))


def _tap(ethertype: int) -> socket.socket:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
    tap.settimeout(5)
    tap.bind(("eth0", ethertype))
    return tap


def udp(port: int) -> Packet:
    return IP(src="198.18.0.1", dst="192.0.2.1") / UDP(sport=1, dport=port)


def test_every_frame_sent_at_a_rate_is_counted_behind_xdp(wire: Wire) -> None:
    with wire.inside.call(Count, "eth0", port_filter(4, UDP_PROTOCOL, 7)) as count:
        sent = wire.generator.send(wire.frame(udp(7)), frames=5000, rate=20_000)
        assert (sent.frames, count.read()) == (5000, 5000)
    assert sent.rate == pytest.approx(20_000, rel=0.1)


def test_a_count_tells_ports_and_versions_apart(wire: Wire) -> None:
    six = IPv6(src="2001:2::1", dst="2001:db8::1") / UDP(sport=1, dport=9)
    with (
        wire.inside.call(Count, "eth0", port_filter(4, UDP_PROTOCOL, 8)) as eight,
        wire.inside.call(Count, "eth0", port_filter(6, UDP_PROTOCOL, 9)) as nine,
    ):
        wire.generator.send(wire.frame(udp(8)), frames=100, rate=50_000)
        wire.generator.send(wire.frame(udp(9)), frames=50, rate=50_000)
        wire.generator.send(wire.frame(six), frames=20, rate=50_000)
        assert (eight.read(), nine.read()) == (100, 20)


@pytest.mark.parametrize("pick", ["next", "random"])
def test_sources_stay_within_their_number_and_headers_stay_right(wire: Wire, pick: str) -> None:
    with wire.inside.call(_tap, 0x0800) as tap:
        wire.generator.send(wire.frame(udp(10)), frames=64, rate=50_000, sources=Sources(4, pick))
        packets = [Ether(tap.recv(2048))[IP] for _ in range(64)]
    allowed = {f"198.18.0.{last}" for last in range(1, 5)}
    seen = {packet.src for packet in packets}
    assert seen == allowed if pick == "next" else seen <= allowed
    for packet in packets:
        given = packet.chksum
        del packet.chksum
        assert IP(bytes(packet)).chksum == given


def test_ipv6_sources_are_each_in_a_network_of_their_own(wire: Wire) -> None:
    six = IPv6(src="2001:2::1", dst="2001:db8::1") / UDP(sport=1, dport=11)
    with wire.inside.call(_tap, 0x86DD) as tap:
        wire.generator.send(wire.frame(six), frames=3, rate=50_000, sources=Sources(3, "next"))
        seen = [Ether(tap.recv(2048))[IPv6].src for _ in range(3)]
    assert seen == ["2001:2::1", "2001:2:0:1::1", "2001:2:0:2::1"]


def test_what_the_verifier_or_compiler_says_is_told(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int wrong(struct xdp_md *ctx) { return nowhere; }")
    with pytest.raises(DataplaneError, match="nowhere"):
        compiled(source, ["wrong"])


def test_sending_ends_when_told_to() -> None:
    ran: list[int] = []
    progress = Progress()
    sent = send_paced(ran.append, progress, at_once=10, stop=lambda: len(ran) == 3)
    assert (sent.frames, ran, progress.frames) == (30, [10, 10, 10], 30)


def test_streams_that_send_at_once_keep_their_own_frames_and_sources(wire: Wire) -> None:
    ports = {0: 21, 1: 22, 2: 23}
    with ExitStack() as stack:
        counts = {
            port: stack.enter_context(wire.inside.call(Count, "eth0", port_filter(4, UDP_PROTOCOL, port)))
            for port in ports.values()
        }
        tap = stack.enter_context(wire.inside.call(_tap, 0x0800))
        threads = stack.enter_context(ThreadPoolExecutor())

        def send(stream: int) -> None:
            packet = udp(ports[stream])
            packet.src = f"198.18.{stream}.1"
            wire.generator.send(
                wire.frame(packet), frames=50, rate=5000, stream=stream, sources=Sources(2, "next")
            )

        for done in [threads.submit(send, stream) for stream in ports]:
            done.result()
        packets = [Ether(tap.recv(2048))[IP] for _ in range(150)]
        assert {port: count.read() for port, count in counts.items()} == dict.fromkeys(ports.values(), 50)
    seen = {(packet.src, packet[UDP].dport) for packet in packets}
    assert seen == {(f"198.18.{stream}.{last}", port) for stream, port in ports.items() for last in (1, 2)}


def test_a_frame_that_finds_no_room_is_sent_when_there_is_some() -> None:
    with Namespace() as outside, Namespace() as inside:
        near, far = join(outside, "wire", inside, "eth0")
        slow = "rate 256kbit burst 200b limit 200b"
        argv = ("tc", "qdisc", "add", "dev", "wire", "root", "tbf", *slow.split())
        subprocess.run(outside.command(*argv), check=True)
        frame = bytes(Ether(src=near[1], dst=far[1]) / udp(7))
        with inside.call(Count, "eth0", port_filter(4, UDP_PROTOCOL, 7)) as count:
            sent = send_frames(outside, "wire", frame, Progress(), rate=10_000, seconds=0.2)
            deadline = time.monotonic() + 10
            while count.read() < sent.frames and time.monotonic() < deadline:
                time.sleep(0.01)
            assert count.read() == sent.frames > 20
