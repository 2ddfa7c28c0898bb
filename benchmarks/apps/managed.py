"""The same app with a TaskManager. This file serves both packages: they have one import name and one API here."""

from __future__ import annotations

import os

from benchmarks.apps import common
from benchmarks.apps.bare import app
from fastapi_taskflow import TaskAdmin, TaskManager

url = os.environ.get("BENCH_URL")
task_manager = TaskManager(snapshot_backend=url) if url else TaskManager(snapshot_db=os.environ.get("BENCH_DB"))
task_manager.task()(common.noop)
TaskAdmin(app, task_manager, auto_install=True)
