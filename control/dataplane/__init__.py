# SPDX-License-Identifier: Apache-2.0
"""The kernel side of the control plane: build, load, pin, attach, publish, read back."""
