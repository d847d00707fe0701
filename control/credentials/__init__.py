# SPDX-License-Identifier: Apache-2.0
"""Passwords and keys of the appliance: encrypted at rest, given to whoever needs them, shown to nobody."""
