"""The stream of changes to open pages: small deltas, resumable, bounded."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.task.event import EventKind
from fastapi_taskflow.web.schemas import dump

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastapi_taskflow.task.event import TaskEvent
    from fastapi_taskflow.task.record import TaskRecord

KEPT: Final = 1_000
"""Changes that a page which lost its connection may catch up on."""
PER_CLIENT: Final = 100
"""Changes that may wait for one slow page; beyond that it is told to load anew."""
NAME_CHARS: Final = 60


@dataclass(frozen=True, slots=True)
class Change:
    """One change as sent.

    Attributes:
        number: Counts up in this process.
        record: The record after it.
    """

    number: int
    record: TaskRecord


@dataclass(slots=True, eq=False)
class Subscription:
    """One open page's queue.

    Attributes:
        waiting: Changes to be sent, oldest first.
        lagged: Whether some were dropped: the page has to load anew.
        closed: Whether the feed has ended.
    """

    waiting: deque[Change] = field(default_factory=deque)
    lagged: bool = False
    closed: bool = False
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, change: Change) -> None:
        """Add a change, or note that this page is too slow."""
        if len(self.waiting) >= PER_CLIENT:
            self.lag()
        else:
            self.waiting.append(change)
            self._wake.set()

    def lag(self) -> None:
        """Note that changes were missed, whatever waits."""
        self.waiting.clear()
        self.lagged = True
        self._wake.set()

    def close(self) -> None:
        """Let the page's stream end."""
        self.closed = True
        self._wake.set()

    async def wait(self, seconds: float) -> None:
        """Return when there is something to do, or after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def take(self) -> Sequence[Change]:
        """Return what waits, in order, and of each task only the newest."""
        newest: dict[str, Change] = {}
        for change in self.waiting:
            newest.pop(change.record.task_id, None)
            newest[change.record.task_id] = change
        self.waiting.clear()
        return tuple(newest.values())


class ChangeFeed:
    """An observer that fans changes out. Without open pages it keeps the last changes' references and does no more."""

    def __init__(self) -> None:
        self._number = 0
        self._recent: deque[Change] = deque(maxlen=KEPT)
        self._subscriptions: set[Subscription] = set()
        self._closed = False
        # Ids of another process, or of this one before a restart, must not be taken for ours.
        self.epoch = secrets.token_hex(4)
        self._left_at = 0

    @property
    def clients(self) -> int:
        """How many pages are open."""
        return len(self._subscriptions)

    def observe(self, event: TaskEvent) -> None:
        """Take note of a change of status. Lines of a log are not streamed."""
        if event.kind is not EventKind.LOGGED:
            self.tell(event.record)

    def tell(self, record: TaskRecord) -> None:
        """Take note of a task that has changed."""
        self._number += 1
        if not self._subscriptions and not self._may_resume():
            return
        change = Change(self._number, record)
        self._recent.append(change)
        for subscription in self._subscriptions:
            subscription.offer(change)

    def resync(self) -> None:
        """Have every open page load anew, since changes were missed, and none resume from before."""
        self._number += 1
        self._recent.clear()
        for subscription in self._subscriptions:
            subscription.lag()

    def subscribe(self, last_event_id: str | None = None) -> Subscription:
        """Return a new subscription, with what came after ``last_event_id`` already in it.

        If that cannot be told any more, the subscription is ``lagged``.
        """
        subscription = Subscription(closed=self._closed)
        if last_event_id:
            missed = self._since(last_event_id)
            if missed is None or len(missed) > PER_CLIENT:
                subscription.lagged = True
            else:
                subscription.waiting.extend(missed)
        if subscription.waiting or subscription.lagged or subscription.closed:
            subscription._wake.set()  # noqa: SLF001 - both belong together
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a page that went away."""
        self._subscriptions.discard(subscription)
        self._left_at = self._number

    def open(self) -> None:
        """Let streams begin, again after ``close``: an app may be started several times."""
        self._closed = False

    def close(self) -> None:
        """End every stream, now and until ``open``."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()

    def event_id(self, change: Change) -> str:
        """Return the id by which a page may resume after ``change``."""
        return f"{self.epoch}-{change.number}"

    def position(self) -> str:
        """Return the id of the newest change."""
        return f"{self.epoch}-{self._number}"

    def _may_resume(self) -> bool:
        if self._recent and self._number - self._left_at > KEPT:
            # Nobody has come back in time, so nothing need be kept for them any more.
            self._recent.clear()
        return bool(self._recent)

    def _since(self, last_event_id: str) -> list[Change] | None:
        epoch, _, number = last_event_id.rpartition("-")
        if epoch != self.epoch or not number.isascii() or not number.isdigit():
            return None
        after = int(number)
        if after == self._number:
            return []
        if after > self._number or not self._recent or self._recent[0].number > after + 1:
            return None
        return [change for change in self._recent if change.number > after]


def delta(record: TaskRecord) -> str:
    """Return what a page needs to update a row, as JSON of at most some 300 bytes."""
    started = record.start_time
    name = record.func_name
    facts: dict[str, Any] = {
        "task_id": record.task_id,
        "func_name": name[:NAME_CHARS] if name.isascii() else name[: NAME_CHARS // 6],
        "status": record.status.value,
        "version": record.version,
        "attempt": record.attempt,
        "max_attempts": record.max_attempts,
        "wait": None if started is None else round(max(0.0, started - record.ready_at), 4),
        "duration": None if record.duration is None else round(record.duration, 4),
    }
    return dump(facts)
