"""Functions for processes: these import them from here."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from fastapi_taskflow import GiveUp, Retry, Snooze, get_task_context, task_log, task_progress


class Odd(Exception):  # noqa: N818
    """An exception that can be pickled, but not made again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def whoami(*values: Any, **named: Any) -> dict[str, Any]:
    """Tell what is known here."""
    context = get_task_context()
    assert context is not None
    return {
        "pid": os.getpid(), "values": values, "named": named, "task_id": context.task_id, "tags": context.tags,
        "attempt": context.attempt, "trace_id": f"{trace.get_current_span().get_span_context().trace_id:032x}",
    }  # fmt: skip


def tells() -> None:
    """Write lines and progress."""
    task_log("first", level="warning", number=1)
    for number in range(500):
        task_progress(number, 500, "counting")
    task_log("last")


def raises(kind: str) -> None:
    """Raise one of these."""
    errors: dict[str, BaseException] = {
        "plain": ValueError("no good"), "odd": Odd(1, 2), "exit": SystemExit(3), "retry": Retry(7),
        "give up": GiveUp("never"), "snooze": Snooze(9),
    }  # fmt: skip
    raise errors[kind]


def gives_lambda() -> Any:
    """Return what cannot be carried."""
    return lambda: None


def dies(how: str) -> None:
    """End the process."""
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(path: str) -> None:
    """Say which process it is, and go on for ever."""
    Path(path).write_text(str(os.getpid()), encoding="ascii")
    while True:
        time.sleep(0.01)


def interrupts() -> str:
    """Get what Ctrl-C sends."""
    os.kill(os.getpid(), signal.SIGINT)
    return sys.version


def traces(number: int) -> None:
    """Make spans, with an SDK that is set up where there is none."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
    tracer = trace.get_tracer("work")
    with tracer.start_as_current_span("outer", attributes={"number": number}), tracer.start_as_current_span("inner"):
        pass
