"""Every name that this package emits: spans, attributes, metrics, labels and buckets.

They are a contract: dashboards and alerts of users depend on them. Names of the OpenTelemetry semantic conventions are
copied as text, because the messaging ones are in development and their Python constants may move.
"""

from __future__ import annotations

from typing import Final

SCOPE: Final = "fastapi_taskflow"
"""Name of the instrumentation scope of every span and every OpenTelemetry metric."""

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
"""The version of the semantic conventions that the names follow."""

# -- spans -----------------------------------------------------------------------------------------------------------

SEND: Final = "send"
"""Operation of the PRODUCER span that ``add_task`` makes."""

PROCESS: Final = "process"
"""Operation of the CONSUMER span of one attempt."""


def span_name(operation: str, task: str) -> str:
    """Return the name of a span: the operation and the task's registered name, such as ``process send_email``."""
    return f"{operation} {task}"


# -- attributes of the semantic conventions --------------------------------------------------------------------------

MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_DESTINATION_NAME: Final = "messaging.destination.name"
"""The task's registered name."""

MESSAGING_MESSAGE_ID: Final = "messaging.message.id"
"""The task's id."""

CODE_FUNCTION_NAME: Final = "code.function.name"
"""The function, with its module."""

ERROR_TYPE: Final = "error.type"
"""The exception's class, fully qualified; only on a failed attempt."""

SYSTEM: Final = "fastapi_taskflow"
"""Value of ``messaging.system``."""

EXCEPTION_EVENT: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

# -- our own attributes ----------------------------------------------------------------------------------------------

QUEUE: Final = "taskflow.queue"
SOURCE: Final = "taskflow.source"
"""``request``, ``manual``, ``retry`` or ``scheduled``."""

PRIORITY: Final = "taskflow.priority"
ATTEMPT: Final = "taskflow.attempt"
"""From 1."""

MAX_ATTEMPTS: Final = "taskflow.max_attempts"
QUEUE_WAIT: Final = "taskflow.queue_wait"
"""Seconds that the task was ready to run and did not; a deliberate delay is not counted."""

STATUS: Final = "taskflow.status"
"""How the attempt ended: ``success``, ``failed``, ``cancelled`` or ``interrupted``."""

# -- OpenTelemetry metrics -------------------------------------------------------------------------------------------

SENT_MESSAGES: Final = "messaging.client.sent.messages"
"""Counter of tasks that were added."""

CONSUMED_MESSAGES: Final = "messaging.client.consumed.messages"
"""Counter of attempts that began."""

PROCESS_DURATION: Final = "messaging.process.duration"
"""Histogram of the seconds that an attempt took."""

QUEUE_WAIT_METRIC: Final = "taskflow.queue.wait"
"""Histogram of the seconds of `QUEUE_WAIT`."""

SEMCONV_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper bounds in seconds that the conventions ask for in ``messaging.process.duration``."""

# -- Prometheus metrics ----------------------------------------------------------------------------------------------

ENQUEUED_TOTAL: Final = "taskflow_tasks_enqueued_total"
FINISHED_TOTAL: Final = "taskflow_tasks_finished_total"
RETRIES_TOTAL: Final = "taskflow_task_retries_total"
RECOVERED_TOTAL: Final = "taskflow_tasks_recovered_total"
DURATION_SECONDS: Final = "taskflow_task_duration_seconds"
QUEUE_WAIT_SECONDS: Final = "taskflow_task_queue_wait_seconds"
RUNNING: Final = "taskflow_tasks_running"
PENDING: Final = "taskflow_tasks_pending"
OLDEST_PENDING_AGE: Final = "taskflow_oldest_pending_age_seconds"
CONCURRENCY_LIMIT: Final = "taskflow_queue_concurrency_limit"
LAST_SUCCESS: Final = "taskflow_task_last_success_timestamp_seconds"
STORE_FLUSH_SECONDS: Final = "taskflow_store_flush_seconds"
STORE_BACKLOG: Final = "taskflow_store_backlog"

LABEL_TASK: Final = "task"
LABEL_QUEUE: Final = "queue"
LABEL_STATUS: Final = "status"

EXEMPLAR_TRACE_ID: Final = "trace_id"
EXEMPLAR_SPAN_ID: Final = "span_id"

TASK_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
)  # fmt: skip
"""Upper bounds in seconds of the duration and of the queue wait."""

FLUSH_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds in seconds of one commit of the store."""

OTHER_TASK: Final = "_other"
"""The ``task`` label of what comes after `MAX_LABELLED_TASKS`."""

OTHER_QUEUE: Final = "_other"
"""The ``queue`` label of what comes after `MAX_LABELLED_QUEUES`. No queue can have this name."""

MAX_LABELLED_QUEUES: Final = 100
"""Queues that get series of their own: a queue for each customer must fill neither the memory nor Prometheus."""

MAX_LABELLED_TASKS: Final = 1_000
"""Pairs of task and queue that get series of their own, so that lambdas or dynamic names cannot fill the memory."""
