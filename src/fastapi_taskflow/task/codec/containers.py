"""Lists, dicts, tuples and sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi_taskflow.task.codec.scalars import is_text
from fastapi_taskflow.task.codec.walk import TAG, Refusal, Walk, index_step

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping


def pack_list(value: Collection[Any], walk: Walk) -> list[Any]:
    """Pack the items in order."""
    walk.enter(value)
    packed: list[Any] = []
    try:
        for item in value:
            packed.append(walk.pack(item, walk))  # noqa: PERF401 - its length tells which item is refused
    except Refusal as refusal:
        refusal.steps.append(f"[{len(packed)}]")
        raise
    walk.leave(value)
    return packed


def pack_tuple(value: tuple[Any, ...], walk: Walk) -> dict[str, Any]:
    """Pack a tuple."""
    return {TAG: "tuple", "v": pack_list(value, walk)}


def pack_set(value: set[Any] | frozenset[Any], walk: Walk) -> dict[str, Any]:
    """Pack a set or a frozenset."""
    walk.enter(value)
    try:
        packed = [walk.pack(item, walk) for item in value]
    except Refusal as refusal:
        refusal.steps.append("{…}")
        raise
    walk.leave(value)
    return {TAG: type(value).__name__, "v": packed}


def pack_dict(value: Mapping[Any, Any], walk: Walk) -> dict[str, Any]:
    """Pack a dict with keys of any kind."""
    walk.enter(value)
    packed = pack_items(value, walk, index_step)
    walk.leave(value)
    return packed


def pack_items(value: Mapping[Any, Any], walk: Walk, step: Callable[[object], str]) -> dict[str, Any]:
    """Pack keys and values: as a JSON object if the keys allow, else as pairs.

    Args:
        value: The mapping.
        walk: The walk, with the owner of the items open.
        step: Names the way to the value of a key.
    """
    packed: dict[str, Any] = {}
    for key, item in value.items():
        if type(key) is not str or key == TAG or not is_text(key):
            return {TAG: "dict", "v": [_pack_pair(*pair, walk, step) for pair in value.items()]}
        try:
            packed[key] = walk.pack(item, walk)
        except Refusal as refusal:
            refusal.steps.append(step(key))
            raise
    return packed


def _pack_pair(key: Any, item: Any, walk: Walk, step: Callable[[object], str]) -> list[Any]:
    try:
        packed_key = walk.pack(key, walk)
    except Refusal as refusal:
        refusal.steps.append(".keys()")
        raise
    try:
        return [packed_key, walk.pack(item, walk)]
    except Refusal as refusal:
        refusal.steps.append(step(key))
        raise
