"""Runs async functions on the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class CoroutineExecutor:
    """Awaits the call where it is made."""

    name = "async"

    async def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Await ``func(*args, **kwargs)``."""
        return await func(*args, **kwargs)
