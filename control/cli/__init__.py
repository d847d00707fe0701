# SPDX-License-Identifier: Apache-2.0
"""valkyrie-ctl, the command line of the appliance."""
