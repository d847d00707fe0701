# SPDX-License-Identifier: Apache-2.0
"""Virtual machines for the tests: their image, QEMU, their network, and how commands are run in them."""
