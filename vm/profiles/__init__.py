# SPDX-License-Identifier: Apache-2.0
"""Packets of the traffic profiles: pure builders, one subject a file. Nothing here sends."""
