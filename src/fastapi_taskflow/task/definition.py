"""What the code says about a kind of task."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """A function and how it is to be run.

    Attributes:
        name: Its registered name: unique in a manager, stored with each task, label of its metrics.
        func: The function, sync or async.
        is_async: Whether calling it gives a coroutine.
        code_name: Module and qualified name, for ``code.function.name``.
        retries: Further attempts after a failed one.
        delay: Seconds before the first retry.
        backoff: Factor on the delay for each further retry.
        persist: Requeue its waiting tasks after a restart, even without the manager's ``requeue_pending``.
        requeue_on_interrupt: Run again what a crash cut off. The function must bear to run twice.
        queue: The queue's name.
        declared: Whether ``@task`` named it, so that a new process knows it by its name.
    """

    name: str
    func: Callable[..., Any]
    is_async: bool
    code_name: str
    retries: int = 0
    delay: float = 0.0
    backoff: float = 1.0
    persist: bool = False
    requeue_on_interrupt: bool = False
    queue: str = "default"
    declared: bool = False

    def backoff_before(self, retry: int) -> float:
        """Return the seconds to wait before retry number ``retry`` (from 1)."""
        try:
            return float(self.delay * self.backoff ** (retry - 1))
        except OverflowError:
            return MAX_DELAY


MAX_DELAY = 10.0 * 365 * 86_400


def calls_async(func: Callable[..., Any]) -> bool:
    """Tell whether calling ``func`` gives a coroutine: async functions, methods, partials and callable objects."""
    while isinstance(func, functools.partial):
        func = func.func
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(getattr(func, "__call__", None))  # noqa: B004


def code_name(func: Callable[..., Any]) -> str:
    """Return module and qualified name of what ``func`` really calls."""
    while isinstance(func, functools.partial):
        func = func.func
    module = getattr(func, "__module__", None) or type(func).__module__
    qualname = getattr(func, "__qualname__", None) or type(func).__qualname__
    return f"{module}.{qualname}"


def short_name(func: Callable[..., Any]) -> str:
    """Return the name that a task of ``func`` has when none is given: the function's own."""
    while isinstance(func, functools.partial):
        func = func.func
    return str(getattr(func, "__name__", None) or type(func).__name__)
