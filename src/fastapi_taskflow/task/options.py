"""The options of ``@task``, checked where they are written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.settings import require_number, require_positive
from fastapi_taskflow.task.definition import TaskDefinition, calls_async, code_name, short_name

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """Checked options of a task; see ``TaskManager.task``."""

    retries: int
    delay: float
    backoff: float
    name: str | None


def checked_options(*, retries: object, delay: Any, backoff: Any, name: object) -> TaskOptions:
    """Return the options.

    Raises:
        ConfigurationError: If one is wrong.
    """
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        msg = f"retries must be a whole number, 0 or more, not {retries!r}"
        raise ConfigurationError(msg)
    require_number("delay", delay)
    if not 0 <= delay < math.inf:
        msg = f"delay must be 0 or more seconds, not {delay!r}"
        raise ConfigurationError(msg)
    require_positive("backoff", backoff)
    if name is not None and (not isinstance(name, str) or not name.strip()):
        msg = f"name must be a string that is not empty, not {name!r}"
        raise ConfigurationError(msg)
    return TaskOptions(retries, float(delay), float(backoff), name)


def declared(func: Any, options: TaskOptions, *, persist: bool, requeue_on_interrupt: bool) -> TaskDefinition:
    """Return the definition of a decorated function.

    Raises:
        ConfigurationError: If ``func`` is not a function.
    """
    if not callable(func):
        msg = f"task() decorates functions, not {func!r}"
        raise ConfigurationError(msg)
    call: Callable[..., Any] = func
    return TaskDefinition(
        name=options.name or short_name(call),
        func=call,
        is_async=calls_async(call),
        code_name=code_name(call),
        retries=options.retries,
        delay=options.delay,
        backoff=options.backoff,
        persist=persist,
        requeue_on_interrupt=requeue_on_interrupt,
        declared=True,
    )
