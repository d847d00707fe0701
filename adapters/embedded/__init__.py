# SPDX-License-Identifier: Apache-2.0
"""The default store: an SQLite file on this host, for any number of its processes."""

from valkyrie.adapters.embedded.adapter import EmbeddedAdapter

__all__ = ["EmbeddedAdapter"]
