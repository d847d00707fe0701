# SPDX-License-Identifier: Apache-2.0
"""A sender from its settings. Its libraries are loaded when it is made, and not before."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from valkyrie.adapters.notify.sender import Sender
from valkyrie.adapters.notify.settings import AdapterBase
from valkyrie.adapters.secrets import Secrets


def make_sender(name: str, settings: AdapterBase, secrets: Secrets, node: str) -> Sender[Any]:
    """Takes up to some 0.2 s the first time, for the libraries: call it in a thread."""
    kind: str = settings.kind  # type: ignore[attr-defined]
    module = import_module(f"valkyrie.adapters.notify.{kind}")
    made: Sender[Any] = module.Notifier(name, settings, secrets, node)
    return made
