# SPDX-License-Identifier: Apache-2.0
"""What the doctor makes of what it finds, and that it looks at this host."""

import pytest

from valkyrie.control.dataplane import doctor, ethtool


@pytest.mark.parametrize(
    ("release", "status"),
    [
        ("5.15.0-91-generic", "ok"),
        ("6.1.0", "ok"),
        ("5.10.0-28-amd64", "fail"),
        ("4.19", "fail"),
        ("odd", "fail"),
    ],
)
def test_a_kernel_too_old_is_a_failure(release: str, status: str) -> None:
    assert doctor.kernel(release).status == status


def test_an_interpreter_instead_of_a_jit_is_a_failure() -> None:
    assert doctor.jit("0\n").status == "fail"
    assert doctor.jit("1\n").status == "ok"


def test_little_memory_is_told_in_figures() -> None:
    assert doctor.memory("MemTotal: 9 kB\nMemAvailable:  102400 kB\n").found == "100 MiB available"
    assert doctor.memory("MemAvailable:  102400 kB\n").status == "warn"
    assert doctor.memory("MemAvailable:  8102400 kB\n").status == "ok"


def test_offloads_that_merge_packets_are_named_with_the_command_that_ends_them() -> None:
    wrong = doctor.nic_offloads("eth9", {"rx-lro": True, "rx-gro-hw": True, "rx-gro": True})
    assert (wrong.status, wrong.mend) == ("warn", "ethtool -K eth9 lro off rx-gro-hw off")
    assert doctor.nic_offloads("eth9", {"rx-lro": False, "rx-gro": True}).status == "ok"


def test_tags_that_a_nic_strips_are_told_of_where_a_limit_matches_vlans() -> None:
    wrong = doctor.nic_vlan("eth9", {"rx-vlan-hw-parse": True, "rx-vlan-stag-hw-parse": False})
    assert (wrong.status, wrong.mend) == ("warn", "ethtool -K eth9 rxvlan off")
    assert doctor.nic_vlan("eth9", {"rx-vlan-hw-parse": False}).status == "ok"
    names = [[check.name for check in doctor.nic_checks("lo", vlans=vlans)] for vlans in (False, True)]
    assert ["lo vlan" in found for found in names] == [False, True]


def test_queues_are_compared_with_cpus_and_with_what_the_nic_has() -> None:
    assert doctor.nic_queues("eth9", 2, 8, 4).mend == "ethtool -L eth9 combined 4"
    assert doctor.nic_queues("eth9", 2, 2, 4).status == "ok"
    assert doctor.nic_queues("eth9", 4, 8, 4).status == "ok"


def test_native_mode_and_mtu_are_judged() -> None:
    assert doctor.nic_driver("eth9", "ixgbe").status == "ok"
    assert doctor.nic_driver("eth9", "e1000").status == "warn"
    assert doctor.nic_mtu("eth9", 9000).status == "warn"
    assert doctor.nic_mtu("eth9", 1500).status == "ok"


def test_this_host_is_examined_and_every_trouble_comes_with_a_remedy() -> None:
    checks = doctor.examine()
    assert {"kernel", "bpf", "bcc", "headers", "bpffs", "memory", "jit"} <= {check.name for check in checks}
    for check in checks:
        assert (check.mend == "") == (check.status == "ok"), check


def test_a_device_that_answers_nothing_has_no_offloads() -> None:
    assert ethtool.features("no-such-nic") == {}
    assert ethtool.driver("no-such-nic") == ""
    assert ethtool.queues("no-such-nic") == (1, 1)
