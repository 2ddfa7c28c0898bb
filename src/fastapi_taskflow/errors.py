"""Every error that the package raises, as one tree.

```
TaskflowError
├── ConfigurationError            a wrong option or combination (also a ValueError)
│   └── LifecycleConflictError    started twice, or by two ways at once
├── NotStartedError               used before startup() or after shutdown()
├── TaskArgumentError             an argument that cannot be stored (also a TypeError)
├── TaskNotFoundError             no such task (also a LookupError)
├── ScheduleNotFoundError         no such schedule (also a LookupError)
├── InvalidTransitionError        the task's status does not allow the change
├── TaskTimeoutError              an attempt took longer than its timeout (also a TimeoutError)
├── TaskProcessError              an attempt in a process of its own ended with that process, or told less than all
├── WaitTimeoutError              wait() or result() waited long enough (also a TimeoutError)
├── TaskFailedError               result() of a task that did not succeed
├── QueueFullError                as many tasks wait in the queue as may
└── StoreError                    the store failed
    ├── StoreUnavailableError     it did not commit in time; the caller may try again
    └── SchemaVersionError        its schema is newer than this code
```
"""

from __future__ import annotations


class TaskflowError(Exception):
    """Base of every error of this package."""


class ConfigurationError(TaskflowError, ValueError):
    """An option, or a combination of options, is wrong."""


class LifecycleConflictError(ConfigurationError):
    """The manager was started twice, or its lifecycle was registered in two ways."""


class NotStartedError(TaskflowError, RuntimeError):
    """The manager is used before ``startup()`` or after ``shutdown()``."""


class TaskArgumentError(TaskflowError, TypeError):
    """An argument of a task cannot be stored.

    Attributes:
        argument: Where the value is, such as ``args[0]`` or ``kwargs['order'].lines[2]``.
    """

    def __init__(self, message: str, *, argument: str) -> None:
        super().__init__(message)
        self.argument = argument


class TaskNotFoundError(TaskflowError, LookupError):
    """No task has this id."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"no task has the id {task_id!r}")
        self.task_id = task_id


class ScheduleNotFoundError(TaskflowError, LookupError):
    """No schedule has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no schedule has the name {name!r}")
        self.name = name


class InvalidTransitionError(TaskflowError):
    """The task's status does not allow what was asked."""


class QueueFullError(TaskflowError):
    """As many tasks wait in the queue as its ``max_size`` allows. Nothing was added.

    Attributes:
        queue: The queue's name.
        max_size: How many may wait.
        retry_after: Seconds after which it makes sense to try again, at least 1.
    """

    def __init__(self, queue: str, *, max_size: int, retry_after: int = 1) -> None:
        super().__init__(
            f"the queue {queue!r} is full: {max_size} task(s) wait in it, and no more may; try again later"
        )
        self.queue = queue
        self.max_size = max_size
        self.retry_after = retry_after


class TaskTimeoutError(TaskflowError, TimeoutError):
    """An attempt took longer than the task's ``timeout``. It counts as a failure, and may be retried."""


class TaskProcessError(TaskflowError):
    """An attempt in a process of its own failed in a way that only that process knows whole.

    The process ended (it was killed, ran out of memory, or called ``os._exit``), or what the function raised or
    returned cannot be carried to this process.

    Attributes:
        told_type: Fully qualified name of the exception's class, as the process told it, or None.
        told_stacktrace: The exception's traceback, as the process told it, or None.
    """

    def __init__(self, message: str, *, told_type: str | None = None, told_stacktrace: str | None = None) -> None:
        super().__init__(message)
        self.told_type = told_type
        self.told_stacktrace = told_stacktrace


class WaitTimeoutError(TaskflowError, TimeoutError):
    """The task had not ended when the time to wait for it was over. It goes on."""


class TaskFailedError(TaskflowError):
    """The task whose result was asked for did not succeed.

    Attributes:
        task_id: Its id.
        status: What became of it.
        error_type: Fully qualified name of its last exception's class, or None.
        error: Its last exception's message, or why it did not succeed, or None.
    """

    def __init__(self, task_id: str, status: str, error_type: str | None, error: str | None) -> None:
        why = ": ".join(part for part in (f"task {task_id} is {status}", error_type, error) if part)
        super().__init__(why)
        self.task_id = task_id
        self.status = status
        self.error_type = error_type
        self.error = error


class StoreError(TaskflowError):
    """The store failed."""


class StoreUnavailableError(StoreError):
    """The store did not commit in time. Nothing was kept; the caller may try again.

    Attributes:
        uncertain: Whether it may have been kept all the same: the connection broke before the store's answer came.
    """

    def __init__(self, message: str, *, uncertain: bool = False) -> None:
        super().__init__(message)
        self.uncertain = uncertain


class SchemaVersionError(StoreError):
    """The database was written by a newer version of this package."""
