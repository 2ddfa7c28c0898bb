"""A measured app in a process of its own, pinned to one core."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.database import postgresql
from benchmarks.variants import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.variants import Variant

SERVER_CORE = "0"
START_TIMEOUT = 20.0
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """A running app.

    Args:
        pid: Its process.
        url: Its address, without a slash at the end.
    """

    def __init__(self, pid: int, url: str) -> None:
        self.pid = pid
        self.url = url

    def cpu_seconds(self) -> float:
        """Return the user and system time it has used, its threads included."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_bytes(self) -> int:
        """Return its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def get(self, path: str) -> str:
        """Return the text of a page.

        Raises:
            OSError: If the server does not answer.
        """
        with urllib.request.urlopen(self.url + path, timeout=60) as response:  # noqa: S310 - an http address of ours
            text: str = response.read().decode()
        return text

    def wait_done(self, tasks: int, timeout: float = 30.0) -> int:
        """Return how many tasks have run, once there are ``tasks`` or no more time."""
        end = time.monotonic() + timeout
        while True:
            done = int(self.get("/done"))
            if done >= tasks or time.monotonic() > end:
                return done
            time.sleep(0.05)


@contextlib.contextmanager
def serve(variant: Variant) -> Iterator[Server]:
    """Run the variant's app under one uvicorn worker; it is stopped, and its database deleted, at the end.

    Raises:
        RuntimeError: If it does not start.
    """
    folder = tempfile.mkdtemp(prefix="taskflow-bench-")
    port = free_port()
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("BENCH_", "OTEL_", "FASTAPI_"))
    }
    stack = contextlib.ExitStack()
    if variant.sqlite:
        environment["BENCH_DB"] = str(Path(folder) / "tasks.db")
    if variant.postgresql:
        environment["BENCH_URL"] = stack.enter_context(postgresql())
    if variant.frozen:
        environment["BENCH_FREEZE"] = "1"
    if variant.sdk:
        environment["BENCH_SDK"] = variant.sdk
    options = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--no-access-log"]
    command = ["taskset", "-c", SERVER_CORE, str(variant.python), "-m", "uvicorn", variant.app, *options]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        server = Server(process.pid, f"http://127.0.0.1:{port}")
        wait_until_up(server, process)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        stack.close()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_up(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers.

    Raises:
        RuntimeError: If its process ends, or does not answer in time.
    """
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            server.get("/done")
            return
        time.sleep(0.1)
    raise RuntimeError(f"the server did not answer within {START_TIMEOUT:.0f} s")


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
