# SPDX-License-Identifier: Apache-2.0
"""Real servers for the tests in this folder."""

from support.server_fixtures import (  # noqa: F401 pytest finds fixtures by name
    _redis,
    _redis_cluster,
    _redis_mtls,
    _valkey,
    _valkey_cluster,
    certs,
    kind,
    redis7,
    redis_mtls,
    resp_cluster,
    resp_server,
    valkey9,
)
