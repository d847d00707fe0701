# SPDX-License-Identifier: Apache-2.0
"""The packet path once more, in plain Python: what the loaded program is held against."""
