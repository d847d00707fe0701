# SPDX-License-Identifier: Apache-2.0
"""Messages as mail by a server of your own. One connection a message: alerts are few, servers hang up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import formatdate

import aiosmtplib

from valkyrie.adapters.notify.kinds import SmtpSettings
from valkyrie.adapters.notify.lookup import Lookup
from valkyrie.adapters.notify.message import Message, NotifyError
from valkyrie.adapters.notify.mqtt_socket import connected
from valkyrie.adapters.notify.sender import Sender, Tls
from valkyrie.adapters.notify.text import cut, digest, footer, heading, one_line
from valkyrie.adapters.secrets import Secrets

PORTS = {"starttls": 587, "tls": 465, "none": 25}
MAX_SUBJECT = 200


def mail(message: Message, node: str, settings: SmtpSettings) -> EmailMessage:
    """The mail; its Message-ID is the same for every delivery of one message."""
    made = EmailMessage(policy=SMTP_POLICY)
    made["Subject"] = cut(one_line(heading(message)), MAX_SUBJECT)
    made["From"] = Address(f"Valkyrie {node}", addr_spec=settings.sender)
    made["To"] = ", ".join(settings.to)
    made["Date"] = formatdate(message.timestamp)
    made["Message-ID"] = f"<{digest(message, node)}@valkyrie.invalid>"
    made["Auto-Submitted"] = "auto-generated"
    made["X-Valkyrie-Severity"] = message.severity.name.lower()
    made["X-Valkyrie-State"] = message.state
    made.set_content(f"{message.body}\n\n{footer(message, node)}\n".lstrip(), cte="quoted-printable")
    return made


class Notifier(Sender[SmtpSettings]):
    def __init__(self, name: str, settings: SmtpSettings, secrets: Secrets, node: str) -> None:
        super().__init__(name, settings, secrets, node)
        self._tls = Tls(settings.tls)
        self._lookup = Lookup()

    async def deliver(self, message: Message) -> str:
        own = self.settings
        password = b"" if own.credential is None else await self.secret(own.credential)
        made = mail(message, self.node, own)
        try:
            async with asyncio.timeout(own.timeout_seconds):
                return await self._sent(made, password)
        except TimeoutError:
            hint = self._tls.hint if own.encryption != "none" else ""
            raise NotifyError(f"no answer within {own.timeout_seconds:g} s", hint) from None
        except (aiosmtplib.SMTPException, OSError, UnicodeError) as error:
            raise translated(error, self.told) from None

    async def _sent(self, made: EmailMessage, password: bytes) -> str:
        own = self.settings
        context = None if own.encryption == "none" else await asyncio.to_thread(self._tls.context)
        client = aiosmtplib.SMTP(
            hostname=own.host,
            sock=await connected(own.host, own.port or PORTS[own.encryption], None, self._lookup),
            timeout=own.timeout_seconds,
            use_tls=own.encryption == "tls",
            start_tls=own.encryption == "starttls",
            tls_context=context,
            local_hostname="localhost",  # finding the own name would ask the resolver
        )
        try:
            await client.connect()
            if own.username is not None:
                await client.login(own.username, password)
            refused, answer = await client.send_message(made, sender=own.sender, recipients=list(own.to))
            if refused:
                raise NotifyError(
                    f"sent, but not to {', '.join(sorted(refused))}: {self.told(_first(refused))}",
                    "is the address right?",
                    permanent=True,
                )
            return f"answered: {self.told(answer)}"
        finally:
            client.close()


def _first(refused: Mapping[str, tuple[int, str]]) -> str:
    code, text = next(iter(refused.values()))
    return f"{code} {text}"


def translated(error: Exception, told: Callable[[str], str]) -> NotifyError:
    """What the server's code says: 5yz is final, all else is tried again."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        codes = [one.code for one in error.recipients]
        said = "; ".join(f"{one.recipient}: {one.code} {one.message}" for one in error.recipients)
        return NotifyError(
            f"no recipient was accepted: {told(said)}",
            permanent=all(500 <= code < 600 for code in codes),
        )
    if isinstance(error, aiosmtplib.SMTPResponseException):
        login = isinstance(error, aiosmtplib.SMTPAuthenticationError)
        return NotifyError(
            f"answered {error.code}: {told(str(error.message))}",
            "is the credential right?" if login else "",
            permanent=500 <= error.code < 600,
        )
    if isinstance(error, aiosmtplib.SMTPNotSupported):
        # Perhaps somebody between who takes STARTTLS out: that ends when they do.
        return NotifyError(f"lacks what is needed: {told(str(error))}", "see `encryption` of this adapter")
    return NotifyError(f"cannot be reached: {told(str(error)) or type(error).__name__}")
