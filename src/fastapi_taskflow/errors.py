"""Every error that the package raises, as one tree.

```
TaskflowError
├── ConfigurationError            a wrong option or combination (also a ValueError)
│   └── LifecycleConflictError    started twice, or by two ways at once
├── NotStartedError               used before startup() or after shutdown()
├── TaskArgumentError             an argument that cannot be stored (also a TypeError)
├── TaskNotFoundError             no such task (also a LookupError)
├── InvalidTransitionError        the task's status does not allow the change
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


class InvalidTransitionError(TaskflowError):
    """The task's status does not allow what was asked."""


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
