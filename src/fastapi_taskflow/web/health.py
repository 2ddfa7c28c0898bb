"""Whether this process is well: what load balancers and Kubernetes probes are told."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.errors import StoreError
from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from fastapi_taskflow.store import Store
    from fastapi_taskflow.web.parts import Journal

logger = logging.getLogger("fastapi_taskflow.web")

ANSWER_WITHIN: Final = 0.8
"""Seconds that the store has for a read: a Kubernetes probe waits for one, unless it is told otherwise."""

SLOW_COMMIT: Final = 2.0
"""Seconds after which a commit under way counts as failing: requests that wait for it are about to get 503."""

ALIVE: Final = {"status": "ok", "reasons": []}
"""What a liveness probe is told: that the event loop turns is all that a restart could mend."""


class HealthCheck:
    """Looks how the store and the way into it are. What is wrong with reading is logged once, not at each probe.

    Args:
        store: Asked for something small.
        journal: Knows how writing goes.
    """

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self._unreadable = False
        self._asked: asyncio.Task[str | None] | None = None

    async def look(self) -> dict[str, Any]:
        """Return the body of the answer; its ``status`` is ``ok`` or ``failing``."""
        unreadable = await self._why_unreadable()
        journal = self._journal
        unwritable = self._why_unwritable()
        reasons = [reason for reason in (unreadable, unwritable) if reason is not None]
        if journal.full:
            reasons.append(f"{journal.backlog} changes wait for the store: no new task is taken in")
        counts = journal.live_counts()
        return {
            "status": "failing" if reasons else "ok",
            "reasons": reasons,
            "store": "ok" if unreadable is None else "failing",
            "writes": "ok" if unwritable is None else "failing",
            "backlog": journal.backlog,
            "pending": sum(count for (_, status), count in counts.items() if status is TaskStatus.PENDING),
            "running": sum(count for (_, status), count in counts.items() if status is TaskStatus.RUNNING),
        }

    def _why_unwritable(self) -> str | None:
        failure, waited = self._journal.failure, self._journal.writing_for
        if failure is not None:
            return f"the store does not take changes: {failure}"
        if waited >= SLOW_COMMIT:
            return f"the store does not take changes: a commit has been under way for {waited:.1f} s"
        return None

    async def _why_unreadable(self) -> str | None:
        asked = self._question()
        # It is not cancelled: a driver may take its time for that too. The next probe finds it as it is then.
        await asyncio.wait({asked}, timeout=ANSWER_WITHIN)
        if not asked.done():
            reason, error = f"the store does not answer within {ANSWER_WITHIN:g} s", None
        elif asked.cancelled():
            reason, error = "the store does not answer: it was stopped", None
        else:
            error = asked.exception()
            if error is None:
                if self._unreadable:
                    logger.warning("the store answers again")
                self._unreadable = False
                return None
            foreseen = isinstance(error, StoreError)
            reason = f"the store does not answer: {error if foreseen else repr(error)}"
            error = None if foreseen else error
        self._log_once(reason, error)
        return reason

    def _question(self) -> asyncio.Task[str | None]:
        """Return the question that is under way, or a new one: probes must not gather in a store that hangs."""
        asked = self._asked
        if asked is None or asked.done() or asked.get_loop() is not asyncio.get_running_loop():
            asked = asyncio.get_running_loop().create_task(self._store.get_meta("web.health"), name="taskflow-health")
            asked.add_done_callback(_forget)
            self._asked = asked
        return asked

    def _log_once(self, reason: str, unforeseen: BaseException | None) -> None:
        if not self._unreadable:
            logger.error("%s", reason, exc_info=unforeseen)
        self._unreadable = True


def _forget(asked: asyncio.Task[str | None]) -> None:
    """Take note of an error that no probe waits for any more, so that asyncio does not complain."""
    if not asked.cancelled():
        asked.exception()
