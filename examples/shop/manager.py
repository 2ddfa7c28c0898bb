"""The shop's task manager. Every module that declares or adds tasks imports it from here."""

from __future__ import annotations

from examples.shop.settings import settings
from fastapi_taskflow import TaskManager

task_manager = TaskManager(
    snapshot_db=settings.db,
    requeue_pending=True,
    log_file=settings.data / "shop.log",
    retention_days=7,
)
