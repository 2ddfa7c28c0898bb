"""Background tasks for FastAPI that survive a crash and show up in your traces."""

from __future__ import annotations

from fastapi_taskflow.__about__ import __version__
from fastapi_taskflow.admin import TaskAdmin
from fastapi_taskflow.background import ManagedBackgroundTasks
from fastapi_taskflow.errors import (
    ConfigurationError,
    InvalidTransitionError,
    LifecycleConflictError,
    NotStartedError,
    QueueFullError,
    ScheduleNotFoundError,
    SchemaVersionError,
    StoreError,
    StoreUnavailableError,
    TaskArgumentError,
    TaskFailedError,
    TaskflowError,
    TaskNotFoundError,
    TaskProcessError,
    TaskTimeoutError,
    WaitTimeoutError,
)
from fastapi_taskflow.manager import TaskManager
from fastapi_taskflow.task.context import TaskContext, get_task_context, task_log, task_progress
from fastapi_taskflow.task.control import GiveUp, Retry, Snooze
from fastapi_taskflow.task.once import ScheduledOnce
from fastapi_taskflow.task.payload import CloudpickleSerializer, PickleSerializer, Serializer
from fastapi_taskflow.task.queue import QueueConfig
from fastapi_taskflow.task.record import TaskRecord, TaskStatus
from fastapi_taskflow.task.step import Step, TaskGroup, chain, previous_result, step
from fastapi_taskflow.telemetry.logs import FileLogger, InMemoryLogger, StdoutLogger
from fastapi_taskflow.telemetry.task_observer import LifecycleEvent, LogEvent, TaskObserver
from fastapi_taskflow.web.auth.backend import TaskAuthBackend
from fastapi_taskflow.web.auth.passwords import hash_password

__all__ = [
    "CloudpickleSerializer",
    "ConfigurationError",
    "FileLogger",
    "GiveUp",
    "InMemoryLogger",
    "InvalidTransitionError",
    "LifecycleConflictError",
    "LifecycleEvent",
    "LogEvent",
    "ManagedBackgroundTasks",
    "NotStartedError",
    "PickleSerializer",
    "QueueConfig",
    "QueueFullError",
    "Retry",
    "ScheduleNotFoundError",
    "ScheduledOnce",
    "SchemaVersionError",
    "Serializer",
    "Snooze",
    "StdoutLogger",
    "Step",
    "StoreError",
    "StoreUnavailableError",
    "TaskAdmin",
    "TaskArgumentError",
    "TaskAuthBackend",
    "TaskContext",
    "TaskFailedError",
    "TaskGroup",
    "TaskManager",
    "TaskNotFoundError",
    "TaskObserver",
    "TaskProcessError",
    "TaskRecord",
    "TaskStatus",
    "TaskTimeoutError",
    "TaskflowError",
    "WaitTimeoutError",
    "__version__",
    "chain",
    "get_task_context",
    "hash_password",
    "previous_result",
    "step",
    "task_log",
    "task_progress",
]
