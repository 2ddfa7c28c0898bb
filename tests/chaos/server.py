"""The service under test: uvicorn with its workers, started again whenever it has ended, as by an init system."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.chaos.evidence import Event
from tests.chaos.facts import SECOND, Hit
from tests.chaos.faults import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.chaos.evidence import Evidence

ROOT: Final = Path(__file__).resolve().parents[2]
HEALTHCHECK: Final = 30
"""Seconds: uvicorn kills a worker that does not answer for so long. Longer than our longest SIGSTOP."""

ENDED_WITHIN: Final = 30.0
"""Seconds: longer than the app's ``shutdown_timeout`` and its last writes together."""

TIME_TO_WRITE: Final = 1.0
LOOK_AGAIN: Final = 0.05


class Service:
    """One uvicorn at a time, in a session of its own.

    Args:
        folder: Working directory, with its log.
        environment: What the app needs to know.
        workers: How many.
        evidence: Where the processes say that they are up.

    Attributes:
        port: Where it listens, the same through all restarts.
        restarts: How often it was started again.
        workers: How many.
        hits: What SIGKILL of all processes has met.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], *, workers: int, evidence: Evidence) -> None:
        self.port = _free_port()
        self.restarts = -1
        self.hits: list[Hit] = []
        self.workers = workers
        self._folder = folder
        self._environment = {**os.environ, **environment, "PYTHONPATH": _python_path()}
        self._evidence = evidence
        self._process: asyncio.subprocess.Process | None = None
        self._up: set[int] = set()
        self._seen = 0
        self._stopping = False

    @property
    def main_pid(self) -> int:
        """The process that was started: with one worker it is the worker, with several their parent."""
        if self._process is None:
            msg = "the service was not started"
            raise RuntimeError(msg)
        return self._process.pid

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep it running until ``stop``; at the end nothing of it is left."""
        keeping = asyncio.create_task(self._keep_running())
        try:
            yield
        finally:
            keeping.cancel()
            if self._process is not None and self._process.returncode is None:
                self.kill_all()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping

    async def _keep_running(self) -> None:
        while not self._stopping:
            with (self._folder / "server.log").open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "uvicorn", "tests.chaos.app:app", "--port", str(self.port),
                    "--workers", str(self.workers), "--timeout-worker-healthcheck", str(HEALTHCHECK),
                    "--log-level", "warning",
                    cwd=self._folder, env=self._environment, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            self.restarts += 1
            await self._process.wait()
            # Workers that have lost their parent would serve on for ever.
            self.kill_all()

    async def stop(self) -> int | None:
        """End it as a deployment does; return its exit code, or None if it does not end.

        Then its workers have written into the log where their threads stood.
        """
        self._stopping = True
        process = self._process
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(ENDED_WITHIN):
                return await process.wait()
        except TimeoutError:
            for pid in self.up():
                self.signal(pid, signal.SIGUSR1)
            await asyncio.sleep(TIME_TO_WRITE)
            return None

    def up(self) -> list[int]:
        """Return the workers that are up and were not killed."""
        self._look()
        self._up = {pid for pid in self._up if _exists(pid)}
        return sorted(self._up)

    def _look(self) -> None:
        lines = self._evidence.lines()
        self._up.update(line.pid for line in lines[self._seen :] if line.event is Event.UP)
        self._seen = len(lines)

    async def all_up(self, *, within: float) -> bool:
        """Wait until all workers are up; return whether they are."""
        deadline = time.monotonic() + within
        while len(self.up()) < self.workers:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK_AGAIN)
        return True

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to one process, if it is there. One that is told to end does not count as up any more."""
        if number in {signal.SIGKILL, signal.SIGTERM}:
            self._up.discard(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def kill_all(self) -> frozenset[int]:
        """Send SIGKILL to all processes at once; return the workers that were up."""
        since = time.monotonic_ns()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.main_pid, signal.SIGKILL)
        # Read afterwards: with those that came up in the last moment.
        self._look()
        killed, self._up = frozenset(self._up), set()
        self.hits.append(Hit(Fault.KILL_ALL.value, killed, since, time.monotonic_ns() + SECOND))
        return killed


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
