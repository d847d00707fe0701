# SPDX-License-Identifier: Apache-2.0
"""Exit codes of valkyrie-ctl, for --help and the reference."""

from valkyrie.control import errors

INTERRUPTED = 130
CHECK_FAILED = 1
NOTIFY_FAILED = 11  # adapters/notify/message.py, likewise
STORE_FAILED = 10  # adapters/errors.py, which the command line loads only where it needs it

MEANINGS: tuple[tuple[int, str], ...] = (
    (0, "done"),
    (CHECK_FAILED, "an error of no other kind, or `doctor` or `store check` found something that fails"),
    (errors.InvalidInput.exit_code, "wrong input: an option, a word, a file; nothing was changed"),
    (errors.NotFound.exit_code, "there is no such limit, NIC, prefix or bucket"),
    (errors.Conflict.exit_code, "what is asked conflicts with what is there"),
    (errors.PermissionRefused.exit_code, "no permission"),
    (errors.Unavailable.exit_code, "valkyried, bpffs or the kernel's BPF cannot be reached"),
    (errors.DataplaneError.exit_code, "building, loading or attaching the program failed"),
    (errors.Foreign.exit_code, "somebody else's XDP program holds the NIC"),
    (errors.StateError.exit_code, "the state could not be written (disk full) or read"),
    (STORE_FAILED, "a store failed, or may have: the message says which"),
    (NOTIFY_FAILED, "a notification was not delivered"),
    (INTERRUPTED, "ended by Ctrl-C"),
)
