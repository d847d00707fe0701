# SPDX-License-Identifier: Apache-2.0
"""The store in this host's kernel: the buckets that packets take from, and small values."""
