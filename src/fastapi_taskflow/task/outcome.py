"""How one attempt ended, as plain facts."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi_taskflow.errors import TaskProcessError

if TYPE_CHECKING:
    from types import TracebackType

MAX_ERROR_CHARS = 8_192
MAX_STACKTRACE_CHARS = 65_536
CALLERS = ("fastapi_taskflow.", "anyio.")
"""Modules between the loop and the task's function: they are the same in every stack trace."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as text that any store can hold.

    Attributes:
        error_type: Fully qualified class name, such as ``ValueError`` or ``httpx.ConnectError``.
        message: ``str(exception)``.
        stacktrace: The formatted traceback.
    """

    error_type: str
    message: str
    stacktrace: str | None = None


def failure_from(error: BaseException) -> Failure:
    """Describe ``error``. An exception whose ``str`` fails is described all the same."""
    if isinstance(error, TaskProcessError) and error.told_type is not None:
        return Failure(error.told_type, storable_text(_message(error), MAX_ERROR_CHARS), error.told_stacktrace)
    return Failure(
        error_type=qualified_name(type(error)),
        message=storable_text(_message(error), MAX_ERROR_CHARS),
        stacktrace=storable_text(_trace(error), MAX_STACKTRACE_CHARS),
    )


def qualified_name(cls: type) -> str:
    """Return the class's full name; builtins go without their module, as OpenTelemetry's ``error.type`` has it."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def storable_text(text: str, limit: int) -> str:
    """Return ``text`` cut to ``limit`` and with what databases refuse (NUL, lone surrogates) spelled out."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}\n… {len(text) - limit} characters left out …\n{text[-(limit // 2) :]}"
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # noqa: BLE001 - a broken __str__ must not hide the failure
        return f"<{type(error).__name__} whose str() failed: {type(second).__name__}>"


def _trace(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, _own_frames(error.__traceback__)))
    except Exception as second:  # noqa: BLE001 - as above
        return f"<traceback could not be formatted: {type(second).__name__}>"


def _own_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the task's own code on, without the frames that called it."""
    first = trace
    while first is not None and first.tb_frame.f_globals.get("__name__", "").startswith(CALLERS):
        first = first.tb_next
    return first or trace
