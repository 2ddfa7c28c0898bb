"""The filters of a query, decided on a row: the meaning that the SQL store gives them in SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi_taskflow.stores.compact import PLACE
from fastapi_taskflow.stores.rows import tag_needle, text_needles
from fastapi_taskflow.task.record import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi_taskflow.store import TaskQuery
    from fastapi_taskflow.stores.rows import Row

_FUNC, _STATUS, _CREATED = PLACE["func_name"], PLACE["status"], PLACE["created_at"]
_SCHEDULE = PLACE["schedule"]
_TAGS, _RESOLUTION = PLACE["tags"], PLACE["resolution"]
_DEAD: Final = frozenset({TaskStatus.FAILED.value, TaskStatus.INTERRUPTED.value})
_TEXTS: Final = (PLACE["task_id"], PLACE["func_name"], PLACE["error"])
_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def name_matches(pattern: str, name: str) -> bool:
    """Whether ``name`` is ``pattern``, or begins with it where the pattern ends in ``*``."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def ascii_lower(text: str) -> str:
    """Return ``text`` with A to Z in lower case; other letters stay, as in SQLite's LIKE."""
    return text.translate(_LOWER)


def matcher(query: TaskQuery) -> Callable[[Row], bool]:
    """Return what decides whether a compact row matches ``query``, cursor and limit aside."""
    tests: list[Callable[[Row], bool]] = []
    if query.statuses:
        statuses = frozenset(status.value for status in query.statuses)
        tests.append(lambda row: row[_STATUS] in statuses)
    if (pattern := query.func_name) is not None:
        tests.append(lambda row: name_matches(pattern, row[_FUNC]))
    equal = dict(query.relations) if query.queue is None else {"queue": query.queue, **query.relations}
    if equal.get("schedule", "").endswith("*"):
        begins = equal.pop("schedule")[:-1]
        tests.append(lambda row: row[_SCHEDULE] is not None and row[_SCHEDULE].startswith(begins))
    tests += [_equals(PLACE[name], wanted) for name, wanted in equal.items()]
    if query.dead:
        tests.append(lambda row: row[_STATUS] in _DEAD and row[_RESOLUTION] is None)
    if (since := query.since) is not None:
        tests.append(lambda row: row[_CREATED] >= since)
    if (until := query.until) is not None:
        tests.append(lambda row: row[_CREATED] < until)
    if query.tag is not None:
        needle = tag_needle(query.tag)
        tests.append(lambda row: row[_TAGS] is not None and needle in row[_TAGS])
    if query.text is not None:
        tests.append(_has_text(query.text))
    return lambda row: all(test(row) for test in tests)


def _equals(column: int, wanted: str) -> Callable[[Row], bool]:
    return lambda row: row[column] == wanted


def _has_text(text: str) -> Callable[[Row], bool]:
    plain, encoded = (ascii_lower(needle) for needle in text_needles(text))

    def has_text(row: Row) -> bool:
        if any(row[column] is not None and plain in ascii_lower(row[column]) for column in _TEXTS):
            return True
        return row[_TAGS] is not None and encoded in ascii_lower(row[_TAGS])

    return has_text
