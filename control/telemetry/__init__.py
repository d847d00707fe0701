# SPDX-License-Identifier: Apache-2.0
"""What the appliance tells of itself: metrics, traces, logs."""
