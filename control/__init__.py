# SPDX-License-Identifier: Apache-2.0
"""The control plane: limits in, rulesets out, and the daemon that keeps them enforced."""
