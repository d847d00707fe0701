# SPDX-License-Identifier: Apache-2.0
"""Rules that call people when it matters, and once."""
