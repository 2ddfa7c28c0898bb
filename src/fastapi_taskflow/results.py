"""What tasks return: kept as text with the record, and given back to whoever asks for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.errors import TaskArgumentError, TaskFailedError
from fastapi_taskflow.task import payload
from fastapi_taskflow.task.cipher import NO_CIPHER
from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from fastapi_taskflow.task.cipher import Cipher
    from fastapi_taskflow.task.context import TaskContext
    from fastapi_taskflow.task.definition import TaskDefinition
    from fastapi_taskflow.task.record import TaskRecord
    from fastapi_taskflow.task.serializer import Serializer

NOT_KEPT: Final = "the result is not kept: {}"
_MARK: Final = '{"not kept":'


class Results:
    """Stores what tasks return, and restores it.

    Args:
        max_bytes: Results whose text is longer are not kept; 0 keeps none.
        serializer: For values of other types, by the user's choice.
        cipher: Encrypts and decrypts the text.
        seals: Whether new results are encrypted.
    """

    def __init__(
        self, max_bytes: int, serializer: Serializer | None = None, cipher: Cipher = NO_CIPHER, *, seals: bool = False
    ) -> None:
        self._max_bytes = max_bytes
        self._serializer = serializer
        self._cipher = cipher
        self._seals = seals

    @property
    def keeps(self) -> bool:
        """Whether results are kept at all."""
        return self._max_bytes > 0

    def text_of(self, definition: TaskDefinition, context: TaskContext, value: Any) -> str | None:
        """Return what a task returned as text, or None if results are not kept.

        One that cannot be kept does not fail the task: a line of its log says why, and so does the text.
        """
        if not (self._max_bytes and definition.keep_result):
            return None
        try:
            text = payload.encode_value(value, serializer=self._serializer)
        except TaskArgumentError as error:
            return self._refused(context, str(error))
        if len(text) > self._max_bytes:
            return self._refused(
                context, f"its text has {len(text)} bytes, more than result_max_bytes={self._max_bytes}"
            )
        return self._cipher.seal(text) if self._seals else text

    def value_of(self, record: TaskRecord) -> Any:
        """Return what a task that has ended returned.

        Raises:
            TaskFailedError: If it did not succeed.
            TaskArgumentError: If its result could not be kept, or cannot be read any more.
        """
        if record.status is not TaskStatus.SUCCESS:
            raise TaskFailedError(record.task_id, record.status.value, record.error_type, record.error)
        if record.result is None:
            return None
        if record.result.startswith(_MARK):
            raise TaskArgumentError(NOT_KEPT.format(json.loads(record.result)["not kept"]), argument="result")
        return payload.decode_value(self._cipher.open(record.result), serializer=self._serializer)

    def _refused(self, context: TaskContext, reason: str) -> str:
        context.log(NOT_KEPT.format(reason), level="warning")
        return _MARK + json.dumps(reason) + "}"
