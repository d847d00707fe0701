# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a store. Drivers' exceptions are translated to these once, at the edge.

`retryable` says whether the same call may be made again without a person's doing anything; of calls
that may have taken effect it is never true.
"""

from __future__ import annotations

from typing import ClassVar

from valkyrie.control.errors import ValkyrieError


class StoreError(ValkyrieError):
    """A store failed. The base of all that a `StoreAdapter` raises besides InvalidInput."""

    exit_code = 10
    code = "store"
    retryable: ClassVar[bool] = False


class StoreConnectionError(StoreError):
    """No connection could be had: the call was not sent."""

    code = "store-connection"
    retryable = True


class StoreTimeout(StoreError):  # noqa: N818 the API's word
    """No answer in time to a call that may be repeated."""

    code = "store-timeout"
    retryable = True


class StoreUnavailable(StoreError):  # noqa: N818 the API's word
    """The store is there and does not serve: loading, no cluster, read-only, out of memory, or its
    circuit breaker is open. The call had no effect.
    """

    code = "store-unavailable"
    retryable = True


class CallRefused(StoreUnavailable):
    """The store serves, but not this call: no room for the value, a limit that it has not heard of yet."""

    code = "store-call-refused"


class AuthenticationFailed(StoreError):  # noqa: N818 the API's word
    """Wrong or missing user name, password or certificate. Trying again makes it worse."""

    code = "store-authentication"


class AuthorizationFailed(StoreError):  # noqa: N818 the API's word
    """The store's user may not run this command or touch this key."""

    code = "store-authorization"


class StoreConfigurationError(StoreError):
    """The settings ask for something that this store cannot do, or contradict each other."""

    code = "store-configuration"


class ConsistencyError(StoreError):
    """What the store holds is not what Valkyrie wrote: another type, a later version, another owner."""

    code = "store-consistency"


class OwnedByAnother(ConsistencyError):  # noqa: N818 the API's word
    """Another appliance has the name, or has decided something else under it: nothing is written."""


class OutcomeUnknown(StoreError):  # noqa: N818 the API's word
    """A call that must not be repeated was sent and no answer came: it took effect once, or not at all."""

    code = "store-outcome-unknown"
