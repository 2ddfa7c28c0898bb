"""How far a running task is."""

from __future__ import annotations

from typing import Final, NamedTuple

from fastapi_taskflow.task.outcome import storable_text

MAX_TEXT_CHARS: Final = 500


class Progress(NamedTuple):
    """What a task told of its progress.

    Attributes:
        part: 0 to 1.
        text: What is being done, or None.
    """

    part: float
    text: str | None = None


def progress_of(done: float, total: float | str | None, text: str | None) -> Progress:
    """Return the progress that the arguments of ``task_progress`` mean.

    Raises:
        ValueError: If they mean none.
    """
    if isinstance(total, str):
        if text is not None:
            msg = f"task_progress takes one text, not {total!r} and {text!r}"
            raise ValueError(msg)
        total, text = None, total
    for name, value in (("done", done), ("total", 1.0 if total is None else total)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            msg = f"{name} must be a number, not {value!r}"
            raise ValueError(msg)  # noqa: TRY004 - one kind of error for all that is wrong here
    whole = 1.0 if total is None else total
    if not whole > 0 or not 0 <= done <= whole:
        allowed = "between 0 and 1" if total is None else "between 0 and the total, and the total above 0"
        msg = f"progress must be {allowed}, not {done!r}" + ("" if total is None else f" of {total!r}")
        raise ValueError(msg)
    return Progress(done / whole, None if text is None else storable_text(str(text), MAX_TEXT_CHARS))
