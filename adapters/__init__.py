# SPDX-License-Identifier: Apache-2.0
"""Adapters to what lies outside this host."""
