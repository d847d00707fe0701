# SPDX-License-Identifier: Apache-2.0
"""The kernel's NICs as the service sees them: which carry the program, and what they are called now."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import cast

from valkyrie.control.dataplane import attach
from valkyrie.control.dataplane.attach import Program, Wish
from valkyrie.control.dataplane.links import links
from valkyrie.control.dataplane.maps import Dataplane
from valkyrie.control.service.engine import Attached, Wire


class KernelNics(ABC):
    """The part of the engine that is about NICs; KernelEngine brings the tables and the program."""

    _pins: Path

    @property
    @abstractmethod
    def _plane(self) -> Dataplane: ...

    @abstractmethod
    def program_id(self) -> int: ...

    def attach(self, nic: str, *, slot: int, mode: str, replace: bool) -> Attached:
        found = attach.query(nic, self._pins)
        # Named first, so that a limit on this interface holds from the first packet.
        self._name(found.ifindex, slot)
        try:
            wish = cast("Wish", mode)
            done = attach.attach(nic, self._plane.fd("police"), self._pins, wish, replace=replace)
        except BaseException:
            if found.program is None or not found.program.ours:
                self._plane.forget_nic(found.ifindex)
            raise
        return Attached(done.mode, done.note)

    def adopt(self, nic: str, *, slot: int, mode: str) -> Attached | None:
        for link in links():
            if link.name == nic and link.prog_id == self.program_id():
                self._name(link.ifindex, slot)
                return None
        return self.attach(nic, slot=slot, mode=mode, replace=False)

    def carriers(self) -> Collection[str]:
        with_program = {link.name: link.prog_id for link in links() if link.prog_id}
        if set(with_program.values()) <= {self.program_id()}:
            return with_program.keys()
        return self.attached().keys()

    def _name(self, ifindex: int, slot: int) -> None:
        """The NIC's slot; an interface that had it before has gone or was made anew."""
        for other, taken in self._plane.nics().items():
            if taken == slot and other != ifindex:
                self._plane.forget_nic(other)
        self._plane.set_nic(ifindex, slot)

    def detach(self, nic: str) -> None:
        found = attach.query(nic, self._pins)
        if found.program is not None and found.program.ours:
            attach.detach(nic, self._pins)
        self._plane.forget_nic(found.ifindex)

    def attached(self) -> Mapping[str, str]:
        return {name: program.mode for name, program in self._ours().items()}

    def holders(self) -> Mapping[int, str]:
        slots = self._plane.nics()
        ours = self._ours()
        return {
            slots[link.ifindex]: link.name for link in links() if link.ifindex in slots and link.name in ours
        }

    def _ours(self) -> Mapping[str, Program]:
        """NICs that carry our program, of this or a former build."""
        return {
            nic.name: nic.program
            for nic in attach.nics(self._pins)
            if nic.program is not None and nic.program.ours
        }

    def wires(self) -> Mapping[str, Wire]:
        found = links()
        ours = {0: False, self.program_id(): True}
        if any(link.prog_id not in ours for link in found):
            ours |= {program.id: True for program in self._ours().values()}
        return {
            link.name: Wire(link.running, ours.get(link.prog_id, False), attach.MODES.get(link.xdp, ""))
            for link in found
        }
