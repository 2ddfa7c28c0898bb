"""The benchmark reads wrk's report right."""

from __future__ import annotations

import pytest

from benchmarks.wrk import Load, parse

REPORT = """Running 2s test @ http://127.0.0.1:8000/one
  1 threads and 16 connections
  Latency Distribution
     50%  850.00us
     75%    1.20ms
     90%    2.00ms
     99%    1.05s
  9120 requests in 2.00s, 1.30MB read
Requests/sec:   4560.12
Transfer/sec:    665.81KB
"""


def test_a_report_is_read_in_milliseconds() -> None:
    """Counts and rates are taken as they stand, latencies become milliseconds whatever their unit."""
    assert parse(REPORT) == Load(requests=9120, rate=4560.12, p50=0.85, p99=1050.0, errors=0)


def test_errors_of_both_kinds_are_counted() -> None:
    """Bad answers and broken connections both count: a variant that refuses work must not look fast."""
    bad = REPORT + "  Socket errors: connect 1, read 2, write 0, timeout 3\n  Non-2xx or 3xx responses: 40\n"
    assert parse(bad).errors == 46


def test_something_else_is_refused() -> None:
    """A text without the figures does not become zeros."""
    with pytest.raises(ValueError, match="not a report"):
        parse("unable to connect to 127.0.0.1:8000 Connection refused")
