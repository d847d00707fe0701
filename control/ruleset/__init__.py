# SPDX-License-Identifier: Apache-2.0
"""From the desired limits to the arrays that the packet program reads."""
