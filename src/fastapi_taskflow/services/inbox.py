"""Takes what other instances leave for this one: requests to cancel its tasks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from fastapi_taskflow.errors import InvalidTransitionError
from fastapi_taskflow.services.loop import Loop

if TYPE_CHECKING:
    from fastapi_taskflow.dispatcher import Dispatcher
    from fastapi_taskflow.store import Instance, Store

logger = logging.getLogger("fastapi_taskflow.services")

POLL: Final = 0.4
"""Seconds between two looks, where the store sends no signal: a request has a second to arrive."""


class Inbox:
    """Looks at each signal of the store, and every `POLL` seconds without one.

    Args:
        store: Where requests are left.
        dispatcher: Cancels.
        me: This instance.
    """

    def __init__(self, store: Store, dispatcher: Dispatcher, me: Instance) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._me = me
        self._loop = Loop("inbox", self.look, interval=0.0)

    async def start(self) -> None:
        """Begin to look."""
        self._loop.start()

    async def stop(self) -> None:
        """End."""
        await self._loop.stop()

    async def look(self) -> None:
        """Wait for a signal, but not for long, and take what is there."""
        await self._store.signalled(POLL)
        for task_id in await self._store.asked_to_cancel(self._me.instance_id):
            self._dispatcher.engine.spawn(self._cancel(task_id))

    async def _cancel(self, task_id: str) -> None:
        try:
            if await self._dispatcher.cancel_here(task_id) is None:
                # Taken over, and not taken up yet: the request waits for the next look.
                await self._store.ask_to_cancel(task_id)
        except InvalidTransitionError:
            logger.debug("task %s had ended when it was to be cancelled", task_id)
