# SPDX-License-Identifier: Apache-2.0
"""A network of namespaces on this host, and traffic to send through it."""
