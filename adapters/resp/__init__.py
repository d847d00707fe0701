# SPDX-License-Identifier: Apache-2.0
"""What Redis and Valkey share: one protocol, one client, one adapter."""
