"""The options of ``@task``, checked where they are written."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.settings import require_number, require_positive
from fastapi_taskflow.task.arguments import checked_priority, checked_queue
from fastapi_taskflow.task.definition import TaskDefinition, calls_async, code_name, short_name
from fastapi_taskflow.task.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

EXECUTORS: Final = ("async", "thread", "process")


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """Checked options of a task; see ``TaskManager.task`` and `TaskDefinition`."""

    retry: RetryPolicy
    name: str | None
    persist: bool
    requeue_on_interrupt: bool
    queue: str
    priority: int
    executor: str | None
    timeout: float | None
    expires: float | None
    unique_for: float | None
    keep_result: bool


def checked_options(
    *,
    retries: object = 0,
    delay: Any = 0.0,
    backoff: Any = 1.0,
    max_delay: Any = None,
    jitter: Any = 0.0,
    retry_on: object = (),
    give_up_on: object = (),
    timeout: Any = None,
    expires: Any = None,
    unique_for: Any = None,
    name: object = None,
    queue: object = "default",
    priority: object = 0,
    executor: object = None,
    persist: bool = False,
    requeue_on_interrupt: bool = False,
    keep_result: bool = True,
) -> TaskOptions:
    """Return the options.

    Raises:
        ConfigurationError: If one is wrong.
    """
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        msg = f"retries must be a whole number, 0 or more, not {retries!r}"
        raise ConfigurationError(msg)
    require_positive("backoff", backoff)
    require_number("jitter", jitter)
    if not 0 <= jitter <= 1:
        msg = f"jitter must be between 0 and 1, the part of the delay that is left to chance, not {jitter!r}"
        raise ConfigurationError(msg)
    if name is not None and (not isinstance(name, str) or not name.strip()):
        msg = f"name must be a string that is not empty, not {name!r}"
        raise ConfigurationError(msg)
    if executor is not None and executor not in EXECUTORS:
        msg = f"executor must be one of {', '.join(EXECUTORS)}, or None for what fits the function, not {executor!r}"
        raise ConfigurationError(msg)
    return TaskOptions(
        retry=RetryPolicy(
            retries=retries,
            delay=_not_negative("delay", delay),
            backoff=float(backoff),
            max_delay=None if max_delay is None else _not_negative("max_delay", max_delay),
            jitter=float(jitter),
            retry_on=_exceptions("retry_on", retry_on),
            give_up_on=_exceptions("give_up_on", give_up_on),
        ),
        name=name,
        persist=persist,
        requeue_on_interrupt=requeue_on_interrupt,
        queue=checked_queue(queue),
        priority=checked_priority(priority),
        executor=str(executor) if executor is not None else None,
        timeout=_above_zero("timeout", timeout),
        expires=_above_zero("expires", expires),
        unique_for=_above_zero("unique_for", unique_for),
        keep_result=keep_result,
    )


def declared(func: Any, options: TaskOptions) -> TaskDefinition:
    """Return the definition of a decorated function.

    Raises:
        ConfigurationError: If ``func`` is not a function, or the executor cannot run it.
    """
    if not callable(func):
        msg = f"task() decorates functions, not {func!r}"
        raise ConfigurationError(msg)
    call: Callable[..., Any] = func
    is_async = calls_async(call)
    if options.executor is not None and is_async is not (options.executor == "async"):
        kind, fitting = ("an async", "async") if is_async else ("a sync", "thread or process")
        msg = f"executor={options.executor!r} cannot run {short_name(call)}, {kind} function: only {fitting} can"
        raise ConfigurationError(msg)
    return TaskDefinition(
        name=options.name or short_name(call),
        func=call,
        is_async=is_async,
        code_name=code_name(call),
        retry=options.retry,
        persist=options.persist,
        requeue_on_interrupt=options.requeue_on_interrupt,
        queue=options.queue,
        priority=options.priority,
        executor=options.executor or "",
        timeout=options.timeout,
        expires=options.expires,
        unique_for=options.unique_for,
        keep_result=options.keep_result,
        declared=True,
    )


def _not_negative(name: str, value: Any) -> float:
    require_number(name, value)
    if not 0 <= value < math.inf:
        msg = f"{name} must be 0 or more seconds, not {value!r}"
        raise ConfigurationError(msg)
    return float(value)


def _above_zero(name: str, value: Any) -> float | None:
    if value is None:
        return None
    require_positive(name, value)
    return float(value)


def _exceptions(name: str, value: object) -> tuple[type[BaseException], ...]:
    kinds = value if isinstance(value, tuple | list | set | frozenset) else (value,)
    for kind in kinds:
        if not inspect.isclass(kind) or not issubclass(kind, BaseException):
            msg = f"{name} must be an exception class, or a tuple of them, not {value!r}"
            raise ConfigurationError(msg)
    return tuple(kinds)
