# SPDX-License-Identifier: Apache-2.0
"""Moving an appliance from one store to another while its callers go on."""
