# SPDX-License-Identifier: Apache-2.0
"""A driver lets go of its device and takes it again, as after a reset or an update of the driver."""

from harness.lab import Lab
from support.sender import Sender
from support.whole import Whole, until

NIC = "data4"
BURST = 3
PINGS = ("--count", "20", "--rate", "100")
RESET = """
device=$(basename "$(readlink -f /sys/class/net/{nic}/device)")
cd /sys/bus/virtio/drivers/virtio_net
echo "$device" >unbind
echo "$device" >bind
"""


def test_a_nic_whose_driver_is_reset_is_attached_again_with_its_buckets_as_they_were(
    lab: Lab, whole: Whole
) -> None:
    whole.limit("echo", match="icmp-type echo-request", key="src", rate="1/h", burst=str(BURST))
    whole.attach(NIC)
    queues, index = len(whole.queues(NIC)), whole.index(NIC)
    assert Sender(lab, NIC).send("ping", *PINGS)["total"]["answered"] == BURST
    whole.host.told("sh", "-ec", RESET.format(nic=NIC))
    until(lambda: whole.index(NIC) not in (0, index), "the NIC is there again")
    until(lambda: whole.program(NIC)[0] == "native", "the program is on it again")
    until(lambda: lab.links[NIC].appliance4 in whole.addresses(NIC), "it has its address again")
    assert len(whole.queues(NIC)) == queues
    notes = [event.get("what", "") for event in whole.done("GET", "/v1/events/last")["events"]]
    assert any(note.startswith(f"{NIC}: ") and "attached again" in note for note in notes), notes
    before = whole.counters("echo")["matched"]
    assert Sender(lab, NIC).send("ping", *PINGS)["total"]["answered"] == 0
    assert whole.counters("echo")["matched"] - before == 20
