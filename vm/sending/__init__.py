# SPDX-License-Identifier: Apache-2.0
"""How the traffic of the profiles is sent, and what of it was answered. Standard library only."""
