# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, in one line for people."""


class TrafficError(Exception):
    """Something typed is wrong, or this machine cannot send it: what, and what to do."""
