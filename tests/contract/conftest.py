# SPDX-License-Identifier: Apache-2.0
"""The stores of the contract suite, and the real servers behind them."""

from support.contract import durable, durable_maker, maker, store  # noqa: F401 pytest finds fixtures by name
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
from support.yggdrasil import _yggdrasil_tables, yggdrasil_tables  # noqa: F401 pytest finds fixtures by name
