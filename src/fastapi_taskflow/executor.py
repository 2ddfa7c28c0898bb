"""The seam to what runs a function. Fillings are in ``executors/``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Executor(Protocol):
    """Runs one call to its end."""

    @property
    def name(self) -> str:
        """What records call it: ``async`` or ``thread``."""

    async def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call ``func`` in the caller's context (ContextVars included) and return what it returns.

        Raises:
            asyncio.CancelledError: If the awaiting asyncio task is cancelled. An executor that cannot stop what it
                runs waits for its real end first.
            BaseException: Whatever ``func`` raises.
        """
