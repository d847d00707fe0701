# SPDX-License-Identifier: Apache-2.0
"""A bound of what a broker may send at once: paho's client would gather packets of up to 256 MB."""

from __future__ import annotations

from typing import Any

from paho.mqtt.enums import MQTTErrorCode

MAX_PACKET = 64 * 1024


def bound_packets(client: Any) -> None:
    """Have it hang up when a larger packet is announced. What has arrived by then is read before that, some
    megabytes at most.
    """
    read = client._packet_read  # noqa: SLF001 - nothing public bounds it

    def bounded() -> MQTTErrorCode:
        code: MQTTErrorCode = read()
        large = client._in_packet["remaining_length"] > MAX_PACKET  # noqa: SLF001 - as above
        return MQTTErrorCode.MQTT_ERR_PROTOCOL if large else code

    client._packet_read = bounded  # noqa: SLF001 - as above
