"""One process of the process executor, as the parent sees it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import pickle
import signal
import threading
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate

from fastapi_taskflow.errors import TaskProcessError
from fastapi_taskflow.executors.child import serve

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi_taskflow.executor import SpanKeeper
    from fastapi_taskflow.task.context import TaskContext

_spawning = multiprocessing.get_context("spawn")


class ChildTraceback(Exception):  # noqa: N818 - it is no error of its own, but how the real one came about
    """The traceback in the child, as the cause of the exception in the parent."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


class WorkerProcess:
    """A spawned process that makes one call at a time.

    Args:
        keeper: Makes what keeps spans there; None keeps none.

    Attributes:
        calls: How many it made.
    """

    def __init__(self, keeper: Callable[[], SpanKeeper] | None = None) -> None:
        self.calls = 0
        self._loop = asyncio.get_running_loop()
        self._context: TaskContext | None = None
        self._ending: asyncio.Future[tuple[str, Any]] | None = None
        self._pipe, theirs = _spawning.Pipe()
        lifeline, self._lifeline = _spawning.Pipe(duplex=False)
        self._process = _spawning.Process(
            target=serve, args=(theirs, lifeline, keeper), name="taskflow-worker", daemon=True
        )
        self._process.start()
        # The child has its own ends; ours would keep the pipes open beyond its end.
        theirs.close()
        lifeline.close()
        threading.Thread(target=self._read, name="taskflow-worker-reader", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.is_alive()

    async def call(self, carried: bytes, context: TaskContext) -> Any:
        """Make a call; return what it returns.

        Raises:
            TaskProcessError: If the process ends, or the value or the error cannot be carried over.
            asyncio.CancelledError: If the waiting is cancelled; the process still runs then.
            BaseException: Whatever the function raises.
        """
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        self.calls += 1
        self._context = context
        self._ending = self._loop.create_future()
        try:
            try:
                self._pipe.send_bytes(pickle.dumps((context.origin, carrier, carried)))
            except OSError:
                kind, fact = "died", None
            else:
                kind, fact = await self._ending
        finally:
            self._context = self._ending = None
        return self._outcome(kind, fact)

    def ask_to_end(self) -> None:
        """Let it end by itself, so that its SDK exports what it has; `kill` sees to it that it has ended."""
        with contextlib.suppress(OSError):
            self._pipe.send_bytes(b"")

    def wait(self, seconds: float) -> None:
        """Wait for its end, for that many seconds at most."""
        self._process.join(seconds)

    def kill(self) -> None:
        """End it now, and wait until it has ended."""
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._lifeline.close()

    def _outcome(self, kind: str, fact: Any) -> Any:
        if kind == "value":
            return fact
        if kind == "unsendable":
            raise TaskProcessError(fact)
        if kind == "died":
            self._process.join()
            raise TaskProcessError(f"its process ended in the middle of it ({_told(self._process.exitcode)})")
        whole, told, text = fact
        if whole is None:
            raise TaskProcessError(told.message, told_type=told.error_type, told_stacktrace=told.stacktrace)
        error: BaseException = pickle.loads(whole)  # noqa: S301 - from our own child, over a pipe that nobody else has
        if error.__cause__ is None:
            error.__cause__ = ChildTraceback(text)
        raise error

    # -- on the reader's thread --------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            while True:
                kind, fact = pickle.loads(self._pipe.recv_bytes())  # noqa: S301 - as above
                self._tell(kind, fact)
        except (EOFError, OSError):
            self._tell("died", None)
        except Exception as error:  # noqa: BLE001 - unpickling runs the value's own code
            self._tell("unsendable", f"what it sent cannot be read here: {error!r}")

    def _tell(self, kind: str, fact: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(self._take, kind, fact)
        except RuntimeError:
            return  # the loop has ended, and nobody waits

    def _take(self, kind: str, fact: Any) -> None:
        context = self._context
        if kind == "log":
            if context is not None:
                context.keep_line(fact)
        elif kind == "progress":
            if context is not None:
                context.keep_progress(fact)
        elif kind == "spans":
            if context is not None:
                context.keep_spans(fact)
        elif self._ending is not None and not self._ending.done():
            self._ending.set_result((kind, fact))


def _told(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"by {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"
