"""What may be given to ``add_task`` beside the function's own arguments."""

from __future__ import annotations

import re
from typing import Final

from fastapi_taskflow.errors import ConfigurationError

MAX_KEY_CHARS: Final = 512
MAX_PRIORITY: Final = 1_000
QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


def require_callable(func: object) -> None:
    """Refuse what cannot be called.

    Raises:
        ConfigurationError: If ``func`` is not callable.
    """
    if not callable(func):
        msg = f"the first argument must be a function, not {func!r}"
        raise ConfigurationError(msg)


def checked_tags(tags: object) -> tuple[str, ...]:
    """Return ``tags`` as a tuple of text.

    Raises:
        ConfigurationError: If it is a single string, or holds anything but text.
    """
    if isinstance(tags, str) or not isinstance(tags, list | tuple | set | frozenset):
        msg = f"tags must be a list of strings, not {tags!r}"
        raise ConfigurationError(msg)
    for tag in tags:
        if not isinstance(tag, str):
            msg = f"every tag must be a string, not {tag!r}"
            raise ConfigurationError(msg)
    return tuple(tags)


def checked_key(key: object) -> str:
    """Return the idempotency key.

    Raises:
        ConfigurationError: If it is empty, too long, or not text.
    """
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_CHARS:
        msg = f"idempotency_key must be a string of 1 to {MAX_KEY_CHARS} characters, not {key!r}"
        raise ConfigurationError(msg)
    return key


def checked_queue(queue: object) -> str:
    """Return the name of a queue.

    Raises:
        ConfigurationError: If it is no name.
    """
    if not isinstance(queue, str) or not QUEUE_NAME.fullmatch(queue):
        msg = (
            f"a queue's name must be 1 to 64 letters, digits, '.', '_', '-' or ':', beginning with a letter or digit, "
            f"not {queue!r}"
        )
        raise ConfigurationError(msg)
    return queue


def checked_priority(priority: object) -> int:
    """Return the priority.

    Raises:
        ConfigurationError: If it is not a whole number from -1,000 to 1,000.
    """
    if isinstance(priority, bool) or not isinstance(priority, int) or not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        msg = f"priority must be a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, not {priority!r}"
        raise ConfigurationError(msg)
    return priority
