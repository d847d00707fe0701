# SPDX-License-Identifier: Apache-2.0
"""What outlives this machine: buckets, counters and the policy, in a store and back."""
