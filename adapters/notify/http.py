# SPDX-License-Identifier: Apache-2.0
"""One POST to a web service: bounded in time and size, and its failures as NotifyError."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from valkyrie.adapters.notify.kinds import AdapterBase, NotifyTls
from valkyrie.adapters.notify.lookup import Lookup
from valkyrie.adapters.notify.message import NotifyError
from valkyrie.adapters.notify.sender import Sender, Tls
from valkyrie.adapters.secrets import Secrets

S = TypeVar("S", bound=AdapterBase)

MAX_ANSWER = 64 * 1024
MAX_RETRY_AFTER = 3600.0
MOST_ADDRESSES = 4  # of one name that are tried in one delivery
AGENT = "valkyrie"
AGAIN = (408, 425, 429)


def _calm(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


# These log every URL, and one of Slack is a secret. A filter holds whatever level is set at run time.
for _logger in ("httpx", "httpcore", "httpcore.connection", "httpcore.http11", "httpcore.proxy"):
    logging.getLogger(_logger).addFilter(_calm)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, None if it is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


def wait_asked(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait as Retry-After says, in seconds or as a date, or X-RateLimit-Reset; bounded."""
    text = headers.get("retry-after", "").strip()
    seconds = math.nan
    if text[:12].isascii() and text[:12].isdigit():
        seconds = float(text[:12])
    elif text:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (ValueError, TypeError, OverflowError, IndexError):
            seconds = math.nan
    reset = headers.get("x-ratelimit-reset", "").strip()
    if math.isnan(seconds) and reset[:12].isascii() and reset[:12].isdigit():
        seconds = float(reset[:12]) - now
    return None if math.isnan(seconds) else min(max(0.0, seconds), MAX_RETRY_AFTER)


def complaint(answer: Answer, said: str, now: float) -> NotifyError | None:
    """What an answer's status means; None for 2xx. `said` is the answer's own reason, for people."""
    status = answer.status
    if 200 <= status < 300:
        return None
    what = f"answered {status}" + (f": {said}" if said else "")
    if status in AGAIN or status >= 500:
        return NotifyError(what, retry_after=wait_asked(answer.headers, now))
    if 300 <= status < 400:
        return NotifyError(
            f"{what} (redirects are not followed)", "set the URL that it leads to", permanent=True
        )
    hint = "is the credential right, and may it do this?" if status in (401, 403) else ""
    return NotifyError(what, hint, permanent=True)


async def _read(client: httpx.AsyncClient, url: httpx.URL, parts: dict[str, Any]) -> Answer:
    async with client.stream("POST", url, **parts) as response:
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_ANSWER:
                break
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, bytes(body[:MAX_ANSWER]))


class HttpSender(Sender[S]):
    """`post` for senders over HTTP. Proxies of the environment are not used."""

    def __init__(self, name: str, settings: S, secrets: Secrets, node: str) -> None:
        super().__init__(name, settings, secrets, node)
        tls = getattr(settings, "tls", NotifyTls())
        self._tls = Tls(tls)
        self._lookup = Lookup()
        self._context: ssl.SSLContext | None = None
        self._client: httpx.AsyncClient | None = None

    async def _connected(self) -> httpx.AsyncClient:
        context = await asyncio.to_thread(self._tls.context)
        if self._client is None or context is not self._context:
            before, self._context = self._client, context
            self._client = httpx.AsyncClient(
                verify=context,
                timeout=self.settings.timeout_seconds,
                trust_env=False,
                follow_redirects=False,
                limits=httpx.Limits(max_connections=2, max_keepalive_connections=1, keepalive_expiry=30),
                # Unpacked, some bytes of an answer could be gigabytes.
                headers={"User-Agent": AGENT, "Accept-Encoding": "identity"},
            )
            if before is not None:
                await before.aclose()
        return self._client

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def post(self, url: str, **parts: Any) -> Answer:
        """The answer, whatever its status. Raises NotifyError, not permanent, without one."""
        limit = self.settings.timeout_seconds
        try:
            async with asyncio.timeout(limit):
                return await self._posted(httpx.URL(url), parts)
        except (TimeoutError, httpx.TimeoutException):
            hint = self._tls.hint if url.startswith("https:") else ""
            raise NotifyError(f"no answer within {limit:g} s", hint) from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            # Its text would quote the URL.
            raise NotifyError("the URL is not one", "as https://host/path") from None
        except (httpx.HTTPError, OSError) as error:
            raise NotifyError(f"cannot be reached: {self.told(str(error)) or type(error).__name__}") from None

    async def _posted(self, url: httpx.URL, parts: dict[str, Any]) -> Answer:
        """By the first address that takes a connection; the others have their share of the time."""
        client = await self._connected()
        name = url.raw_host.decode("ascii")
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await self._lookup.addresses(name, port)
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))[:MOST_ADDRESSES]
        limit = self.settings.timeout_seconds
        named = {
            "headers": {**parts.pop("headers", {}), "Host": url.netloc.decode("ascii")},
            "extensions": {"sni_hostname": name},  # whose certificate it must be
            "timeout": httpx.Timeout(limit, connect=limit / len(addresses)),
        }
        *others, last = addresses
        for address in others:
            with contextlib.suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await _read(client, url.copy_with(host=address), {**parts, **named})
        return await _read(client, url.copy_with(host=last), {**parts, **named})

    def strange(self, answer: Answer, service: str) -> NotifyError:
        """For a 2xx whose body is not the service's, as of a proxy between: who knows what became of it."""
        what = f"answered {answer.status} with something that is not {service}'s: {self.told(answer.body)!r}"
        return NotifyError(what, "is the URL right, and is no proxy between?")

    def judged(self, answer: Answer, said: str) -> None:
        """Raises NotifyError for an answer that is no 2xx."""
        wrong = complaint(answer, said, time.time())
        if wrong is not None:
            raise wrong
