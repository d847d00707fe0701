# SPDX-License-Identifier: Apache-2.0
"""Valkyrie as a service of the host."""
