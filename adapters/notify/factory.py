# SPDX-License-Identifier: Apache-2.0
"""A sender from its settings. Its libraries are loaded when it is made, and not before."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from valkyrie.adapters.secrets import Secrets

if TYPE_CHECKING:
    from valkyrie.adapters.notify.kinds import AdapterBase
    from valkyrie.adapters.notify.sender import Sender


def make_sender(name: str, settings: AdapterBase, secrets: Secrets, node: str) -> Sender[Any]:
    """Takes up to some 0.2 s the first time, for the libraries: call it in a thread."""
    kind: str = settings.kind  # type: ignore[attr-defined]
    module = import_module(f"valkyrie.adapters.notify.{kind}")
    made: Sender[Any] = module.Notifier(name, settings, secrets, node)
    return made
