# SPDX-License-Identifier: Apache-2.0
"""One adapter's own task: nobody else waits when its service is slow or away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from valkyrie.adapters.notify.message import Message, NotifyError
from valkyrie.control.notes import Tell
from valkyrie.control.notify.backlog import Entry
from valkyrie.control.notify.book import Book

if TYPE_CHECKING:
    from valkyrie.adapters.notify.sender import Sender

log = logging.getLogger(__name__)

RESTART_S = 1.0
CLOSE_S = 1.2
MARGIN_S = 2.0  # what a sender may take beyond its own timeout before it is cut off


@dataclass(frozen=True)
class Pace:
    """How a message is tried again: rounds of attempts with growing waits, and a hold between rounds in
    which other messages have their turn.
    """

    attempts: int = 6
    round_s: float = 90.0
    first_s: float = 0.5
    most_s: float = 30.0
    jitter_s: float = 1.0
    hold_s: float = 30.0
    hold_most_s: float = 300.0


@dataclass
class Standing:
    """How the adapter does, for people."""

    state: str = "starting"  # starting, ok, failing
    delivered: int = 0
    failures: int = 0
    last_ok: float | None = None
    last_error: str = ""
    last_error_at: float | None = None


class Worker:
    def __init__(
        self,
        name: str,
        make: Callable[[], Sender[Any]],
        book: Book,
        wall: Callable[[], float],
        tell: Tell,
        *,
        give_up_s: float,
        timeout_s: float,
        pace: Pace,
    ) -> None:
        self.name = name
        self.standing = Standing()
        self.wake = asyncio.Event()
        self.hurry = asyncio.Event()  # a person asks to try again now, whatever the service said
        self.ready: asyncio.Future[Sender[Any]] = asyncio.get_running_loop().create_future()
        self._make = make
        self._book = book
        self._wall = wall
        self._tell = tell
        self._give_up_s = give_up_s
        self._timeout_s = timeout_s
        self._pace = pace
        self._rounds: dict[str, int] = {}

    async def run(self) -> None:
        """Until cancelled, whatever happens."""
        sender: Sender[Any] | None = None
        try:
            while True:
                try:
                    if sender is None:
                        sender = await asyncio.to_thread(self._make)
                        await sender.start()
                        self.ready.set_result(sender)
                    await self._next(sender)
                except Exception as error:  # noqa: BLE001 - another message must have its turn
                    self._failed(NotifyError(bug(error)))
                    await asyncio.sleep(RESTART_S)
        finally:
            self._book.backlog(self.name).release()
            if sender is not None:
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(CLOSE_S):
                        await sender.close()

    async def _next(self, sender: Sender[Any]) -> None:
        """Deliver one message, or wait for one."""
        backlog = self._book.backlog(self.name)
        self.wake.clear()
        entry = backlog.take(time.monotonic())
        if entry is None:
            due = backlog.next_due
            left = None if due is None else max(0.0, due - time.monotonic())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.wake.wait()
            return
        try:
            await self._round(sender, entry)
        except NotifyError as error:
            await self._after(entry, error)
        else:
            self._rounds.pop(entry.message.key, None)
            self._book.done(entry)
        finally:
            backlog.release()

    async def _after(self, entry: Entry, error: NotifyError) -> None:
        """A round failed: bury the message, or hold it back."""
        now, key = self._wall(), entry.message.key
        waited = entry.waited(time.monotonic())
        if error.permanent or waited >= self._give_up_s:
            why = error.what if error.permanent else f"given up after {waited:.0f} s: {error.what}"
            log.error("notification %r cannot be delivered by %s: %s", entry.message.title, self.name, why)
            self._rounds.pop(key, None)
            self._book.bury(entry, why, now)
            return
        rounds = self._rounds[key] = min(self._rounds.get(key, 0) + 1, 16)
        hold = min(self._pace.hold_s * 2 ** (rounds - 1), self._pace.hold_most_s)
        self._book.backlog(self.name).hold(key, time.monotonic() + hold)
        if error.retry_after is not None:  # the service's word, for all messages
            self.hurry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(error.retry_after):
                    await self.hurry.wait()

    async def _round(self, sender: Sender[Any], entry: Entry) -> None:
        """Some attempts. Raises the last one's NotifyError."""
        import stamina  # noqa: PLC0415 - only who has something to deliver pays for it
        from stamina.instrumentation import set_on_retry_hooks  # noqa: PLC0415

        set_on_retry_hooks(())  # they would load a metrics library, and log what `status` says better
        pace = self._pace

        def again(error: Exception) -> bool | float:
            if not isinstance(error, NotifyError) or error.permanent or self._over(entry):
                return False
            if error.retry_after is None:
                return True
            # A longer wait is the queue's, where a person can end it.
            return max(error.retry_after, pace.first_s) if error.retry_after <= pace.most_s else False

        async for attempt in stamina.retry_context(
            on=again,
            attempts=pace.attempts,
            timeout=pace.round_s,
            wait_initial=pace.first_s,
            wait_max=pace.most_s,
            wait_jitter=pace.jitter_s,
        ):
            with attempt:
                await self.attempt(sender, entry.message)

    def _over(self, entry: Entry) -> bool:
        return entry.waited(time.monotonic()) >= self._give_up_s

    async def attempt(self, sender: Sender[Any], message: Message) -> str:
        """Once. What the service answered; NotifyError is noted and goes on."""
        limit = self._timeout_s + MARGIN_S
        try:
            async with asyncio.timeout(limit):
                answer = await sender.deliver(message)
        except NotifyError as error:
            self._failed(error)
            raise
        except TimeoutError:
            late = NotifyError(f"no answer within {limit:g} s")
            self._failed(late)
            raise late from None
        except Exception as error:  # noqa: BLE001 - a bug of one sender must not stop the queue
            wrong = NotifyError(bug(error))
            self._failed(wrong)
            raise wrong from None
        log.debug("%s took %r: %s", self.name, message.title, answer)
        self._succeeded()
        return answer

    def _succeeded(self) -> None:
        mine = self.standing
        if mine.state == "failing":
            log.info("notifications by %s are delivered again", self.name)
            self._tell("notify", f"{self.name}: delivers again")
        mine.state, mine.delivered, mine.last_ok = "ok", mine.delivered + 1, self._wall()

    def _failed(self, error: NotifyError) -> None:
        mine = self.standing
        if mine.state != "failing":
            log.warning("notifications by %s fail: %s", self.name, error)
            self._tell("notify", f"{self.name}: {error.what}")
        mine.state, mine.failures = "failing", mine.failures + 1
        mine.last_error, mine.last_error_at = str(error), self._wall()


def bug(error: Exception) -> str:
    """An unforeseen error by its kind and place: its text may hold what it was given, as a secret."""
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" at {place[0].filename.rpartition('/')[2]}:{place[0].lineno}" if place else ""
    return f"a bug: {type(error).__name__}{where}"
