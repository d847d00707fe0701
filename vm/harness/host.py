# SPDX-License-Identifier: Apache-2.0
"""A machine of the lab, as one that runs commands: by ssh, or in a network namespace of this host."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.child import tail
from harness.errors import VmError

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Host:
    """Commands run behind `prefix`; with `shell` it is ssh's, and a shell at its end splits words anew."""

    name: str
    prefix: tuple[str, ...]
    shell: bool = False

    def argv(self, words: Sequence[str]) -> list[str]:
        """What is run here so that `words` run there."""
        return [*self.prefix, *((shlex.join(words),) if self.shell else words)]

    def run(
        self,
        *words: str,
        input: str | None = None,  # noqa: A002 - as subprocess has it
        timeout: float = TIMEOUT_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root; its exit code is the caller's to judge."""
        try:
            return subprocess.run(
                self.argv(words),
                input=input if input is not None else "",
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise VmError(f"{self.name}: no end of `{shlex.join(words)}` after {timeout:.0f} s") from error

    def told(self, *words: str, input: str | None = None, timeout: float = TIMEOUT_S) -> str:  # noqa: A002
        """What a command that must succeed prints."""
        done = self.run(*words, input=input, timeout=timeout)
        if done.returncode != 0:
            what = f"{self.name}: `{shlex.join(words)}` failed (exit {done.returncode})"
            raise VmError(what, tail(done.stdout + done.stderr, 40))
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command whose input and output are the caller's; the caller ends it."""
        return subprocess.Popen(
            self.argv(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def put(self, local: Path, remote: str) -> None:
        """Copy a file there."""
        if not self.shell:
            shutil.copyfile(local, remote)
            return
        self._pour(("sh", "-c", 'cat >"$1"', "put", remote), local.read_bytes())

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from there."""
        if not self.shell:
            shutil.copyfile(remote, local)
            return
        local.write_bytes(self._pour(("cat", remote), b""))

    def unpack(self, archive: bytes, folder: str) -> None:
        """Put the content of a tar archive into a folder there."""
        self._pour(("sh", "-c", 'mkdir -p "$1" && tar -x -C "$1"', "unpack", folder), archive)

    def _pour(self, words: Sequence[str], content: bytes) -> bytes:
        done = subprocess.run(
            self.argv(words), input=content, capture_output=True, check=False, timeout=TIMEOUT_S
        )
        if done.returncode != 0:
            raise VmError(
                f"{self.name}: `{shlex.join(words)}` failed", tail(done.stderr.decode(errors="replace"))
            )
        return done.stdout
