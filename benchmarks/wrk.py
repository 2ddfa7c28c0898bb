"""The load generator: wrk, pinned to the core that the server does not use."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

CLIENT_CORE = "1"
CONNECTIONS = 16
MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw.

    Attributes:
        requests: Answered requests.
        rate: Requests a second.
        p50: Median latency, ms.
        p99: 99th percentile of the latency, ms.
        errors: Answers outside 2xx and 3xx, and socket errors.
    """

    requests: int
    rate: float
    p50: float
    p99: float
    errors: int


def run_wrk(url: str, seconds: float) -> Load:
    """Load the page for so many seconds.

    Raises:
        subprocess.CalledProcessError: If wrk fails.
    """
    command = [
        "taskset",
        "-c",
        CLIENT_CORE,
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{max(1, round(seconds))}s",
        "--latency",
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return parse(done.stdout)


def parse(text: str) -> Load:
    """Read wrk's report.

    Raises:
        ValueError: If it is not one.
    """
    requests = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if requests is None or rate is None:
        raise ValueError(f"not a report of wrk: {text!r}")
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    sockets = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors = int(failed[1]) if failed else 0
    if sockets:
        errors += sum(int(number) for number in sockets.groups())
    return Load(int(requests[1]), float(rate[1]), percentile(text, 50), percentile(text, 99), errors)


def percentile(text: str, percent: int) -> float:
    """Return a line of wrk's latency distribution in ms.

    Raises:
        ValueError: If the report has no such line.
    """
    line = re.search(rf"^\s*{percent}%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
    if line is None:
        raise ValueError(f"the report has no {percent}% line")
    return float(line[1]) * MILLISECONDS[line[2]]
