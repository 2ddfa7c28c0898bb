"""What the code says about a kind of task."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.task.retry import NO_RETRY, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi_taskflow.task.need import Need


INNER: Final = "taskflow."
"""How the names of this package's own tasks begin."""


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """A function and how it is to be run.

    Attributes:
        name: Its registered name: unique in a manager, stored with each task, label of its metrics.
        func: The function, sync or async.
        is_async: Whether calling it gives a coroutine.
        code_name: Module and qualified name, for ``code.function.name``.
        retry: Whether and when a failed attempt is followed by another one.
        persist: Requeue its waiting tasks after a restart, even without the manager's ``requeue_pending``.
        requeue_on_interrupt: Run again what a crash cut off. The function must bear to run twice.
        queue: The queue's name.
        priority: Higher runs first within its queue.
        executor: ``async``, ``thread`` or ``process``.
        timeout: Seconds that one attempt may take, or None.
        expires: Seconds after which a task that has not started is cancelled, or None.
        unique_for: Seconds of the windows in which a second task with the same arguments, or the same key, is the first
            one; None without windows.
        keep_result: Whether what it returns is kept.
        declared: Whether ``@task`` named it, so that a new process knows it by its name.
        needs: The parameters that are filled for each attempt.
        parameters: The names by which the function takes keyword arguments that are not filled.
    """

    name: str
    func: Callable[..., Any]
    is_async: bool
    code_name: str
    retry: RetryPolicy = NO_RETRY
    persist: bool = False
    requeue_on_interrupt: bool = False
    queue: str = "default"
    priority: int = 0
    executor: str = ""
    timeout: float | None = None
    expires: float | None = None
    unique_for: float | None = None
    keep_result: bool = True
    declared: bool = False
    needs: tuple[Need, ...] = ()
    parameters: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Look at the function."""
        # An option of add_task that has the name of a need is the option: nobody has to give the need.
        filled = {need.parameter for need in self.needs}
        object.__setattr__(self, "parameters", parameters_of(self.func) - filled)
        if not self.executor:
            object.__setattr__(self, "executor", "async" if self.is_async else "thread")


def parameters_of(func: Callable[..., Any]) -> frozenset[str]:
    """Return the names by which ``func`` takes keyword arguments; none if its signature cannot be told."""
    try:
        signature = inspect.signature(func)
    except (TypeError, ValueError):
        return frozenset()
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(name for name, parameter in signature.parameters.items() if parameter.kind in by_name)


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
