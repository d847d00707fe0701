# SPDX-License-Identifier: Apache-2.0
"""Several stores as one: the first that serves is used, and an earlier one again when it is well."""
