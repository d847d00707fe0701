# SPDX-License-Identifier: Apache-2.0
"""Messages to people: routed, queued durably, delivered by one worker an adapter."""
