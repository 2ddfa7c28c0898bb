"""One way down through an argument, and what stops it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.task.outcome import qualified_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi_taskflow.task.serializer import Serializer

TAG: Final = "$"
"""The key that tells an encoded value from a plain dict; what is there names the type. Dicts with it are encoded."""

MAX_DEPTH: Final = 100
MAX_STEPS: Final = 16
MAX_KEY_SHOWN: Final = 60


class Refusal(Exception):  # noqa: N818 - it never leaves the codec, where it becomes a TaskArgumentError
    """A value that cannot be stored.

    Attributes:
        reason: What it is, as the end of a sentence that begins with where it is.
        shape: Whether its nesting is at fault, not its type.
        steps: The way to it, from the inside out.
    """

    def __init__(self, reason: str, *, shape: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.shape = shape
        self.steps: list[str] = []

    def path(self) -> str:
        """Return where the value is, such as ``args[0]['lines'][2].price``."""
        steps = self.steps[::-1]
        if len(steps) > MAX_STEPS:
            steps = [*steps[: MAX_STEPS // 2], "…", *steps[-MAX_STEPS // 2 :]]
        return "".join(steps)


class Walk:
    """The containers that are open on the way down.

    Args:
        pack: Encodes one value.
        serializer: Takes what is of no known type.
    """

    __slots__ = ("_open", "pack", "serializer")

    def __init__(self, pack: Callable[[Any, Walk], Any], serializer: Serializer | None) -> None:
        self.pack = pack
        self.serializer = serializer
        self._open: set[int] = set()

    def enter(self, container: object) -> None:
        """Open a container. A refusal ends the whole walk, so only success closes it again.

        Raises:
            Refusal: If it is open already, or too many are.
        """
        if id(container) in self._open:
            msg = "contains itself"
            raise Refusal(msg, shape=True)
        if len(self._open) >= MAX_DEPTH:
            msg = f"is nested deeper than {MAX_DEPTH} levels"
            raise Refusal(msg, shape=True)
        self._open.add(id(container))

    def leave(self, container: object) -> None:
        """Close a container."""
        self._open.discard(id(container))


def serialized(value: Any, serializer: Serializer) -> dict[str, Any]:
    """Return ``value`` as the user's serializer stores it.

    Raises:
        Refusal: If the serializer fails.
    """
    try:
        data = base64.b64encode(serializer.dumps(value))
    except Exception as error:
        msg = (
            f"is {described(value)}, which the serializer {serializer.name!r} refuses: {type(error).__name__}: {error}"
        )
        raise Refusal(msg) from error
    return {TAG: "serialized", "by": serializer.name, "v": data.decode("ascii")}


def described(value: object) -> str:
    """Return what ``value`` is, for a sentence, with advice for what people often pass by mistake."""
    name = qualified_name(type(value))
    article = "an" if name[0].lower() in "aeiou" else "a"
    return f"{article} {name}{_ADVICE.get(type(value).__name__, '')}"


_ADVICE: Final = {
    "UploadFile": " (read it in the route; pass the bytes, or the path of a file)",
    "Request": " (pass what the task needs of it)",
    "Session": " (open a new session in the task)",
    "AsyncSession": " (open a new session in the task)",
}


def index_step(key: object) -> str:
    """Return the step to the value of ``key`` in a dict."""
    shown = repr(key) if type(key) in (str, int, bool, float, bytes) else f"<{type(key).__name__}>"
    return f"[{shown}]" if len(shown) <= MAX_KEY_SHOWN else f"[{shown[:MAX_KEY_SHOWN]}…]"


def field_step(name: object) -> str:
    """Return the step to an attribute."""
    return f".{name}"
