"""Records for people: decrypted, and without what they must not see."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.task.cipher import SEALED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastapi_taskflow.store import Page, TaskQuery
    from fastapi_taskflow.task.cipher import Cipher
    from fastapi_taskflow.task.record import LogEntry, TaskRecord
    from fastapi_taskflow.task.redaction import Redaction
    from fastapi_taskflow.task.registry import Registry

UNREADABLE: Final = "<{}>"


class Clear:
    """Makes records that may be shown.

    Args:
        registry: Knows the names of positional parameters.
        cipher: Decrypts.
        redaction: Says what is not shown.
    """

    def __init__(self, registry: Registry, cipher: Cipher, redaction: Redaction) -> None:
        self._registry = registry
        self._cipher = cipher
        self._redaction = redaction

    def __call__(self, record: TaskRecord) -> TaskRecord:
        """Return the record as it may be shown. It must not be stored."""
        payload, result, logs = record.payload, record.result, record.logs
        sealed = (payload or "").startswith(SEALED) or (result or "").startswith(SEALED)
        sealed = sealed or any(line.message.startswith(SEALED) for line in logs)
        if not (sealed or self._redaction.active):
            return record
        parameters = self._parameters(record.func_name) if payload is not None else ()
        return record._replace(
            payload=None if payload is None else self._text(payload, lambda text: self._call(text, parameters)),
            result=None if result is None else self._text(result, self._value),
            logs=tuple(self._line(line) for line in logs),
        )

    def _text(self, text: str, shown: Callable[[str], str]) -> str:
        try:
            return shown(self._cipher.open(text))
        except TaskArgumentError as error:
            return json.dumps({"args": [UNREADABLE.format(error)], "kwargs": {}})
        except (ValueError, TypeError, LookupError):
            return text  # what is no stored text is shown as it is

    def _call(self, text: str, parameters: Sequence[str]) -> str:
        return self._redaction.call(text, parameters) if self._redaction.active else text

    def _value(self, text: str) -> str:
        return self._redaction.value(text) if self._redaction.active else text

    def _line(self, line: LogEntry) -> LogEntry:
        if not line.message.startswith(SEALED):
            return line
        try:
            message, extra = json.loads(self._cipher.open(line.message))
        except TaskArgumentError as error:
            return dataclasses.replace(line, message=UNREADABLE.format(error))
        except ValueError:
            return line
        return dataclasses.replace(line, message=message, extra=extra)

    def _parameters(self, func_name: str) -> Sequence[str]:
        definition = self._registry.get(func_name)
        try:
            return tuple(inspect.signature(definition.func).parameters) if definition is not None else ()
        except (TypeError, ValueError):
            return ()


class Lines:
    """What is done with the lines of tasks: fields that people must not see are replaced, and lines are encrypted.

    Args:
        redaction: Says what is not shown. It is not stored or logged either: nothing needs it again.
        cipher: Encrypts lines; None stores them as they are.
    """

    def __init__(self, redaction: Redaction, cipher: Cipher | None) -> None:
        self._redaction = redaction
        self._cipher = cipher

    def fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the further fields of a line as they may be shown."""
        return self._redaction.fields(fields)

    def stored(self, line: LogEntry) -> LogEntry:
        """Return a line as it is stored."""
        if self._cipher is None:
            return line
        text = json.dumps([line.message, line.extra], default=repr)
        return dataclasses.replace(line, message=self._cipher.seal(text), extra=None)


class ClearJournal:
    """A journal whose records may be shown."""

    def __init__(self, journal: Any, clear: Clear) -> None:
        self._journal = journal
        self._clear = clear

    def __getattr__(self, name: str) -> Any:
        """Return what has no record in it from the journal itself."""
        return getattr(self._journal, name)

    async def get(self, task_id: str) -> TaskRecord | None:
        """Return the newest record, or None."""
        record = await self._journal.get(task_id)
        return None if record is None else self._clear(record)

    async def list(self, query: TaskQuery) -> Page:
        """Return one page."""
        page: Page = await self._journal.list(query)
        return dataclasses.replace(page, records=tuple(map(self._clear, page.records)))


class ClearDispatcher:
    """A dispatcher whose records may be shown."""

    def __init__(self, dispatcher: Any, clear: Clear) -> None:
        self._dispatcher = dispatcher
        self._clear = clear

    def __getattr__(self, name: str) -> Any:
        """Return what has no record in it from the dispatcher itself."""
        return getattr(self._dispatcher, name)

    async def cancel(self, task_id: str) -> TaskRecord:
        """Cancel a task; return its record as it is then."""
        return self._clear(await self._dispatcher.cancel(task_id))

    async def retry(self, task_id: str) -> TaskRecord:
        """Run an unsuccessful task again; return the new task's record."""
        return self._clear(await self._dispatcher.retry(task_id))

    async def discard(self, task_id: str) -> TaskRecord:
        """Take a task off the dead letters; return its record."""
        return self._clear(await self._dispatcher.discard(task_id))
