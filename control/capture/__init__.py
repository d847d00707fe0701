# SPDX-License-Identifier: Apache-2.0
"""Copies of packets for people, with what became of each."""
