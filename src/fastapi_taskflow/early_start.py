"""``eager=True``: a task that is stored and started without waiting for the response."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi_taskflow.errors import StoreUnavailableError

if TYPE_CHECKING:
    from fastapi_taskflow.dispatcher import Dispatcher
    from fastapi_taskflow.entry import Entry


class EarlyStart:
    """Has one task stored, and starts it as soon as it is.

    Args:
        dispatcher: Takes the task.
        entry: The task.
    """

    __slots__ = ("_begun", "_dispatcher", "_entry", "_failure", "_storing")

    def __init__(self, dispatcher: Dispatcher, entry: Entry) -> None:
        self._dispatcher = dispatcher
        self._entry = entry
        self._begun = False
        self._storing: asyncio.Task[None] | None = None
        self._failure: StoreUnavailableError | None = None

    def soon(self) -> None:
        """Begin in the loop's next turn; may be called from any thread."""
        self._dispatcher.call_soon(self.begin)

    def begin(self) -> None:
        """Begin. Harmless when it has."""
        if not self._begun:
            self._begun = True
            self._storing = self._dispatcher.engine.begin(self._store_and_start())

    async def begun(self) -> None:
        """Wait until the task is stored, and has started or waits in its queue.

        Raises:
            StoreUnavailableError: If the store did not commit in time. The task is withdrawn.
        """
        self.begin()
        if self._storing is not None:
            await asyncio.shield(self._storing)
        if self._failure is not None:
            raise self._failure

    async def _store_and_start(self) -> None:
        engine, entry = self._dispatcher.engine, self._entry
        try:
            await self._dispatcher.admit([entry])
        except StoreUnavailableError as error:
            entry.withdrawn = True
            self._failure = error
            return
        if entry.admitted:
            engine.begin(engine.run(entry))
