"""Runs async functions on the event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping


class CoroutineExecutor:
    """Awaits the call where it is made."""

    name = "async"
    can_stop = True

    def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Awaitable[Any]:
        """Return what ``func(*args, **kwargs)`` gives to await."""
        awaitable: Awaitable[Any] = func(*args, **kwargs)
        return awaitable
