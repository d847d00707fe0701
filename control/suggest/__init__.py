# SPDX-License-Identifier: Apache-2.0
"""Rates found from what was seen: observations, and their analysis."""
