"""Observers that write events down: to a file, to standard output, to memory."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from logging.handlers import RotatingFileHandler, WatchedFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.telemetry.lines import line_of
from fastapi_taskflow.telemetry.pump import ObserverPump
from fastapi_taskflow.telemetry.task_observer import LifecycleEvent, LogEvent, TaskObserver

if TYPE_CHECKING:
    from typing import NoReturn

MAX_BYTES: Final = 10 * 1024 * 1024
BACKUP_COUNT: Final = 5
MAX_ENTRIES: Final = 1_000


class _Rotating(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> NoReturn:  # noqa: ARG002, N802 - logging's name
        raise  # noqa: PLE0704 - called while the error is handled: the pump logs it, stderr gets nothing


class _Watched(WatchedFileHandler):
    def handleError(self, record: logging.LogRecord) -> NoReturn:  # noqa: ARG002, N802 - as above
        raise  # noqa: PLE0704 - as above


class FileLogger(TaskObserver):
    """Writes one line of text for each event to a file.

    The file is opened at startup. Its folder must exist.

    Args:
        path: The file.
        max_bytes: Size at which ``rotate`` begins a new file.
        backup_count: Older files that ``rotate`` keeps, as ``path.1`` and so on.
        mode: ``rotate``: the file is rotated here, for one process a file. ``watched``: logrotate or the like moves
            it, and it is opened anew then; several processes may share it.
        lifecycle: Write changes of status too, not only the lines of ``task_log``.

    Raises:
        ConfigurationError: If an option is out of range.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int = MAX_BYTES,
        backup_count: int = BACKUP_COUNT,
        mode: Literal["rotate", "watched"] = "rotate",
        lifecycle: bool = True,
    ) -> None:
        if mode not in ("rotate", "watched"):
            msg = f"mode must be 'rotate' or 'watched', not {mode!r}"
            raise ConfigurationError(msg)
        if max_bytes <= 0 or backup_count < 1:
            msg = f"max_bytes and backup_count must be 1 or more, not {max_bytes!r} and {backup_count!r}"
            raise ConfigurationError(msg)
        self.path = Path(path)
        self.lifecycle = lifecycle
        self._max_bytes = max_bytes
        self._backup_count = backup_count
        self._mode = mode
        self._handler: logging.Handler | None = None

    def startup(self) -> None:
        """Open the file."""
        if self._mode == "watched":
            self._handler = _Watched(self.path, encoding="utf-8", errors="backslashreplace")
        else:
            self._handler = _Rotating(
                self.path,
                maxBytes=self._max_bytes,
                backupCount=self._backup_count,
                encoding="utf-8",
                errors="backslashreplace",
            )

    def shutdown(self) -> None:
        """Close the file."""
        if self._handler is not None:
            self._handler.close()
            self._handler = None

    def on_log(self, event: LogEvent) -> None:
        """Write a line."""
        self._write(line_of(event))

    def on_lifecycle(self, event: LifecycleEvent) -> None:
        """Write a line."""
        self._write(line_of(event))

    def _write(self, line: str) -> None:
        if self._handler is not None:
            self._handler.handle(logging.makeLogRecord({"msg": line}))


class StdoutLogger(TaskObserver):
    """Writes one line of text for each event to standard output.

    Args:
        lifecycle: Write changes of status too, not only the lines of ``task_log``.
    """

    def __init__(self, *, lifecycle: bool = True) -> None:
        self.lifecycle = lifecycle

    def on_log(self, event: LogEvent) -> None:
        """Write a line."""
        _print(line_of(event))

    def on_lifecycle(self, event: LifecycleEvent) -> None:
        """Write a line."""
        _print(line_of(event))


class InMemoryLogger(TaskObserver):
    """Keeps the newest events, for tests and for a look inside.

    Args:
        max_entries: How many.
        lifecycle: Keep changes of status too, not only the lines of ``task_log``.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES, *, lifecycle: bool = True) -> None:
        if max_entries < 1:
            msg = f"max_entries must be 1 or more, not {max_entries!r}"
            raise ConfigurationError(msg)
        self.lifecycle = lifecycle
        self._lock = threading.Lock()
        self._events: deque[LogEvent | LifecycleEvent] = deque(maxlen=max_entries)

    @property
    def events(self) -> list[LogEvent | LifecycleEvent]:
        """Everything that is kept, oldest first."""
        with self._lock:
            return list(self._events)

    @property
    def logs(self) -> list[LogEvent]:
        """The lines of ``task_log``, oldest first."""
        return [event for event in self.events if isinstance(event, LogEvent)]

    @property
    def lifecycle_events(self) -> list[LifecycleEvent]:
        """The changes of status, oldest first."""
        return [event for event in self.events if isinstance(event, LifecycleEvent)]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._events.clear()

    def on_log(self, event: LogEvent) -> None:
        """Keep it."""
        with self._lock:
            self._events.append(event)

    def on_lifecycle(self, event: LifecycleEvent) -> None:
        """Keep it."""
        with self._lock:
            self._events.append(event)


def _print(line: str) -> None:
    stream = sys.stdout
    encoding = stream.encoding or "utf-8"
    text = (
        line
        if encoding.lower().replace("-", "") == "utf8"
        else line.encode(encoding, "backslashreplace").decode(encoding)
    )
    stream.write(f"{text}\n")
    stream.flush()


__all__ = [
    "FileLogger",
    "InMemoryLogger",
    "LifecycleEvent",
    "LogEvent",
    "ObserverPump",
    "StdoutLogger",
    "TaskObserver",
]
