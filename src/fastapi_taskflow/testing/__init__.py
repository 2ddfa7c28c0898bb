"""Aids for the tests of an application: run a task in place, capture what is added, move the time.

Fixtures for pytest are in ``fastapi_taskflow.testing.fixtures``.
"""

from __future__ import annotations

from fastapi_taskflow.testing.capture import CapturedTask, CapturedTasks, capture_tasks
from fastapi_taskflow.testing.fake_clock import FakeClock
from fastapi_taskflow.testing.inline import InlineRun, run_inline

__all__ = ["CapturedTask", "CapturedTasks", "FakeClock", "InlineRun", "capture_tasks", "run_inline"]
