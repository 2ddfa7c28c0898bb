"""What runs in a process of the process executor: one call after another, each with its task's context."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as otel_context
from opentelemetry import propagate

from fastapi_taskflow.task.context import TaskContext, set_task_context
from fastapi_taskflow.task.outcome import failure_from

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from fastapi_taskflow.executor import SpanKeeper
    from fastapi_taskflow.task.progress import Progress
    from fastapi_taskflow.task.record import LogEntry, TaskRecord

PROGRESS_EVERY: Final = 0.05
"""Seconds between two messages on progress; the last one of an attempt always comes."""

_PR_SET_PDEATHSIG: Final = 1


def serve(calls: Connection, lifeline: Connection, keeper: Callable[[], SpanKeeper] | None) -> None:
    """Take calls until there are no more. Ends at once, in the middle of a call, when the parent is gone.

    Args:
        calls: Calls come and what becomes of them goes here.
        lifeline: Nothing comes here; it breaks when the parent ends.
        keeper: Makes what keeps spans; None keeps none.
    """
    _end_with_parent(lifeline)
    # Ctrl-C goes to the whole process group; the parent decides what becomes of its tasks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = _Channel(calls)
    spans = keeper() if keeper is not None else None
    with contextlib.suppress(EOFError, OSError):
        while message := calls.recv_bytes():
            kind, fact = _called(message, channel, spans)
            kept = spans.end() if spans is not None else ()
            if kept:
                channel.send("spans", kept)
            channel.send_ending(kind, fact)


def _called(message: bytes, channel: _Channel, spans: SpanKeeper | None) -> tuple[str, Any]:
    """Make the call; return ``value`` or ``error`` and what it is."""
    context: ChildContext | None = None
    try:
        origin, carrier, call = pickle.loads(message)  # noqa: S301 - from the parent, over a pipe that nobody else has
        context = ChildContext(origin, channel)
        set_task_context(context)
        otel_context.attach(propagate.extract(carrier))
        func, args, kwargs = pickle.loads(call)  # noqa: S301 - as above; it imports the function's module
        if spans is not None:
            # After that module was imported, which may have set up the SDK.
            spans.begin()
        value = func(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - SystemExit too ends the attempt, not this process
        return "error", error
    else:
        return "value", value
    finally:
        if context is not None:
            context.tell_last_progress()


class _Channel:
    """The way to the parent, for the task's code and its threads."""

    def __init__(self, calls: Connection) -> None:
        self._calls = calls
        self._lock = threading.Lock()

    def send(self, kind: str, fact: Any) -> None:
        """Send a message."""
        message = pickle.dumps((kind, fact))
        with self._lock:
            self._calls.send_bytes(message)

    def send_ending(self, kind: str, fact: Any) -> None:
        """Send how a call ended; what cannot be pickled is told as text."""
        if kind == "value":
            try:
                self.send(kind, fact)
            except Exception as error:  # noqa: BLE001 - pickling runs the value's own code
                self.send("unsendable", f"what it returned cannot be carried to the service: {error!r}")
            return
        told = failure_from(fact)
        text = "".join(traceback.format_exception(fact))
        try:
            whole = pickle.dumps(fact)
            pickle.loads(whole)  # noqa: S301 - our own; many exceptions can be pickled, but not made again
        except Exception:  # noqa: BLE001 - as above
            whole = None
        self.send(kind, (whole, told, text))


class ChildContext(TaskContext):
    """A task's context whose lines and progress go to the parent."""

    __slots__ = ("_channel", "_told_at")

    def __init__(self, origin: TaskRecord, channel: _Channel) -> None:
        super().__init__(origin)
        self._channel = channel
        self._told_at = 0.0

    def keep_line(self, entry: LogEntry, number: int | None = None) -> None:  # noqa: ARG002 - the parent looks it up
        """Send the line."""
        self._channel.send("log", entry)

    def keep_progress(self, progress: Progress) -> None:
        """Send the progress, if the last one was not just now."""
        self.progress = progress
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_EVERY:
            self._told_at = now
            self._channel.send("progress", progress)

    def tell_last_progress(self) -> None:
        """Send the newest progress, which may not have been sent."""
        if self.progress is not None:
            self._channel.send("progress", self.progress)


def _end_with_parent(lifeline: Connection) -> None:
    """End this process as soon as its parent has ended: another instance may run the task again then."""
    if sys.platform == "linux":
        # The kernel does it also while code holds the interpreter.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def wait() -> None:
        with contextlib.suppress(EOFError, OSError):
            lifeline.recv_bytes()
        os._exit(1)

    threading.Thread(target=wait, name="taskflow-lifeline", daemon=True).start()
