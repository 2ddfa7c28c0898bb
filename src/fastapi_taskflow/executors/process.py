"""Runs sync functions in processes of their own, for work that keeps a core busy, and that can be stopped."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.executors.worker_process import WorkerProcess
from fastapi_taskflow.task.context import get_task_context
from fastapi_taskflow.task.portable import carried

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi_taskflow.executor import SpanKeeper


LAST_WORDS: Final = 2.0
"""Seconds that a process has to end by itself: what its SDK has not exported by then is lost."""


class ProcessExecutor:
    """Runs each call in one of a few spawned processes. The first call starts the first process.

    A call that is cancelled, by hand, at its time limit or by the shutdown, is killed with its process, and has ended
    when ``run`` returns.

    Args:
        max_workers: Processes at the same time; further calls wait.
        max_calls: Calls after which a process is replaced by a new one, so that what leaks is given back.
        keeper: Makes what keeps the user's spans in a process: something that can be imported there. None keeps none.
    """

    name = "process"
    can_stop = True

    def __init__(self, max_workers: int, max_calls: int, keeper: Callable[[], SpanKeeper] | None = None) -> None:
        self._keeper = keeper
        self._max_workers = max_workers
        self._max_calls = max_calls
        self._idle: list[WorkerProcess] = []
        self._places: asyncio.Semaphore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call ``func`` in a process, with this task's context, and return what it returns.

        Raises:
            TaskArgumentError: If the call cannot be carried there.
            TaskProcessError: If the process ends, or the value or the error cannot be carried back.
            asyncio.CancelledError: If it was cancelled. The process has ended.
            BaseException: Whatever ``func`` raises.
        """
        context = get_task_context()
        if context is None:
            msg = "the process executor runs tasks, with their context"
            raise RuntimeError(msg)
        call = carried(func, args, kwargs)
        async with self._place():
            worker = self._worker()
            try:
                value = await worker.call(call, context)
            except asyncio.CancelledError:
                worker.kill()
                raise
            finally:
                self._give_back(worker)
            return value

    def close(self) -> None:
        """End the processes, which have nothing to do any more."""
        idle, self._idle = self._idle, []
        for worker in idle:
            worker.ask_to_end()
        deadline = time.monotonic() + LAST_WORDS
        for worker in idle:
            worker.wait(max(0.0, deadline - time.monotonic()))
            worker.kill()

    def _place(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._places is None or self._loop is not loop:
            self.close()
            self._loop, self._places = loop, asyncio.Semaphore(self._max_workers)
        return self._places

    def _worker(self) -> WorkerProcess:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            worker.kill()
        return WorkerProcess(self._keeper)

    def _give_back(self, worker: WorkerProcess) -> None:
        if not worker.alive:
            worker.kill()
        elif worker.calls < self._max_calls:
            self._idle.append(worker)
        else:
            worker.ask_to_end()
            # Not here: its SDK may take its time.
            threading.Thread(target=_end, args=(worker,), name="taskflow-worker-end", daemon=True).start()


def _end(worker: WorkerProcess) -> None:
    worker.wait(LAST_WORDS)
    worker.kill()
