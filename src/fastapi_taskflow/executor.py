"""The seam to what runs a function. Fillings are in ``executors/``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fastapi_taskflow.task.record import SpanFact


class Executor(Protocol):
    """Runs one call to its end."""

    @property
    def name(self) -> str:
        """What records call it: ``async``, ``thread`` or ``process``."""

    @property
    def can_stop(self) -> bool:
        """Whether a call has ended once the asyncio task that awaits it is cancelled."""

    def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Awaitable[Any]:
        """Call ``func`` in the caller's context (ContextVars included); return what to await for what it returns.

        Raises:
            asyncio.CancelledError: If the awaiting asyncio task is cancelled, and the executor can stop what it runs.
                One that cannot goes on to the call's real end.
            BaseException: Whatever ``func`` raises.
        """


class SpanKeeper(Protocol):
    """Keeps the user's spans of one call at a time, in a process that an executor started."""

    def begin(self) -> None:
        """Begin to keep what runs under the current span."""

    def end(self) -> tuple[SpanFact, ...]:
        """Return what ran under it, by start time."""
