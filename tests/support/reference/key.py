# SPDX-License-Identifier: Apache-2.0
"""Which bucket a packet pays from: the key's words and their fingerprint."""

from __future__ import annotations

from dataclasses import dataclass

from support.reference.packet import LOW_WORD, Address, Packet
from support.reference.siphash import siphash_words
from valkyrie.control.abi import UID_BAN, KeyField

SOURCE_IS_IPV4, DESTINATION_IS_IPV4 = 1 << 21, 1 << 22
ADDRESS_BITS = (1 << 128) - 1


@dataclass(frozen=True, slots=True)
class Lengths:
    """Prefix lengths of an address in a key, for each family."""

    v4: int
    v6: int

    def masked(self, address: Address) -> list[int]:
        """What remains: the low word of an IPv4 address, its mark (0xffff) included; both words of IPv6."""
        host_bits = 32 - self.v4 if address.is_ipv4 else 128 - self.v6
        value = address.value & (ADDRESS_BITS << host_bits & ADDRESS_BITS)
        return [value & LOW_WORD] if address.is_ipv4 else [value >> 64, value & LOW_WORD]


@dataclass(frozen=True, slots=True)
class Key:
    """None and False: not part of the key. All absent: `global`, one bucket for all."""

    src: Lengths | None = None
    dst: Lengths | None = None
    sport: bool = False
    dport: bool = False
    protocol: bool = False

    @property
    def fields(self) -> int:
        parts = {
            KeyField.SPORT: self.sport,
            KeyField.DPORT: self.dport,
            KeyField.PROTOCOL: self.protocol,
            KeyField.SRC: self.src,
            KeyField.DST: self.dst,
        }
        return sum(field for field, part in parts.items() if part)

    def words(self, uid: int, packet: Packet) -> list[int]:
        """What is hashed; a packet without ports counts as port 0."""
        assert packet.src is not None
        assert packet.dst is not None
        first = uid | self.fields << 16
        first |= (packet.sport or 0 if self.sport else 0) << 32
        first |= (packet.dport or 0 if self.dport else 0) << 48
        if self.protocol:
            first |= packet.protocol << 24
        addresses: list[int] = []
        if self.src:
            first |= SOURCE_IS_IPV4 if packet.src.is_ipv4 else 0
            addresses += self.src.masked(packet.src)
        if self.dst:
            first |= DESTINATION_IS_IPV4 if packet.dst.is_ipv4 else 0
            addresses += self.dst.masked(packet.dst)
        return [first, *addresses]

    def fingerprint(self, secret: tuple[int, int], uid: int, packet: Packet) -> int:
        """64 bits; 0 marks an unused way of the table, so it becomes 1."""
        return siphash_words(secret, self.words(uid, packet)) or 1


BAN_KEY = Key(src=Lengths(32, 64))


def ban_fingerprint(secret: tuple[int, int], packet: Packet) -> int:
    """The bucket that stands for a ban of the packet's source."""
    return BAN_KEY.fingerprint(secret, UID_BAN, packet)
