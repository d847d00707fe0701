# SPDX-License-Identifier: Apache-2.0
"""Without root's rights, but able to read: a checkout may lie in a folder that is root's alone."""

_READ = "+dac_read_search"
AS_NOBODY = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    f"--inh-caps={_READ}",
    f"--ambient-caps={_READ}",
)
