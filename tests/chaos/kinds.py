"""The tasks of the app under test, and what each of them is promised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random


@dataclass(frozen=True, slots=True)
class Kind:
    """One task function.

    Attributes:
        name: The function's name, in the store too.
        share: How often the client asks for it, compared with the others.
        repeatable: Whether it is declared with ``requeue_on_interrupt=True``: at least once. Otherwise at most once.
        keyed: Whether the client gives an idempotency key.
    """

    name: str
    share: int
    repeatable: bool = False
    keyed: bool = False


QUICK: Final = Kind("quick", 4)
IN_THREAD: Final = Kind("in_thread", 3)
AGAIN: Final = Kind("again", 3, repeatable=True)
SLOW: Final = Kind("slow", 2, repeatable=True)
SLOW_ONCE: Final = Kind("slow_once", 1)
FAILS_FIRST: Final = Kind("fails_first", 2, repeatable=True)
KEYED: Final = Kind("keyed", 2, keyed=True)

KINDS: Final = {kind.name: kind for kind in (QUICK, IN_THREAD, AGAIN, SLOW, SLOW_ONCE, FAILS_FIRST, KEYED)}


def any_kind(dice: random.Random) -> Kind:
    """Return a kind, each as often as its share says."""
    kinds = list(KINDS.values())
    return dice.choices(kinds, [kind.share for kind in kinds])[0]
