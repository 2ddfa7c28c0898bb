"""A finished record as the memory store keeps it: one tuple of atoms.

The garbage collector does not track such a tuple, so a long history costs its passes nothing.
"""

from __future__ import annotations

from typing import Final

from fastapi_taskflow.stores.rows import Row, encode_tags, nested_columns, record_from
from fastapi_taskflow.task.record import TaskRecord

FIELDS: Final = (*TaskRecord._fields, "trace_id")
PLACE: Final = {name: place for place, name in enumerate(FIELDS)}

_STATUS, _PAYLOAD, _TAGS = PLACE["status"], PLACE["payload"], PLACE["tags"]
_NESTED: Final = slice(PLACE["attempts"], PLACE["spans"] + 1)


def compact(record: TaskRecord) -> Row:
    """Return the record's values in the order of `FIELDS`, nested ones as JSON, without its payload."""
    values = [*record, record.trace_id]
    values[_STATUS] = record.status._value_
    values[_PAYLOAD] = None
    values[_TAGS] = encode_tags(record.tags) if record.tags else None
    values[_NESTED] = nested_columns(record)
    return tuple(values)


def expand(row: Row) -> TaskRecord:
    """Return the record of a compact row."""
    return record_from(row, FIELDS)
