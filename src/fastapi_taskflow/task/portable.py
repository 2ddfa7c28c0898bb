"""Whether a call can be carried to another process of this machine."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.task.definition import short_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def carried(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    """Return the call as bytes for another process.

    Raises:
        TaskArgumentError: If the function cannot be imported there, or an argument cannot be pickled. Its ``argument``
            tells which one.
    """
    try:
        return bytes(ForkingPickler.dumps((func, args, dict(kwargs))))
    except Exception as error:
        raise _refusal(func, args, kwargs, error) from error


def _refusal(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], error: Exception
) -> TaskArgumentError:
    name = short_name(func)
    if _reason(func) is not None:
        msg = (
            f"{name}() cannot run in a process of its own: it must be a function that can be imported, at the top "
            f"level of its module, no closure or lambda ({error})"
        )
        return TaskArgumentError(msg, argument="func")
    given = [(f"args[{place}]", value) for place, value in enumerate(args)]
    given += [(f"kwargs[{key!r}]", value) for key, value in kwargs.items()]
    for where, value in given:
        reason = _reason(value)
        if reason is not None:
            msg = f"{name}() cannot run in a process of its own: {where} cannot be pickled ({reason})"
            return TaskArgumentError(msg, argument=where)
    msg = f"{name}() cannot run in a process of its own: {error}"
    return TaskArgumentError(msg, argument="args")


def _reason(value: object) -> str | None:
    try:
        ForkingPickler.dumps(value)
    except Exception as error:  # noqa: BLE001 - pickling runs the value's own code
        return f"{type(error).__name__}: {error}"
    return None
