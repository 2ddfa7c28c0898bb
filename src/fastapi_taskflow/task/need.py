"""A parameter of a task that is filled for each attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, eq=False)
class Need:
    """A parameter that is filled for each attempt by what a dependency gives.

    Attributes:
        parameter: The parameter's name.
        call: The dependency: a function, generator function or class.
        use_cache: Whether all who need the same dependency in one attempt get the same value.
        declaration: The ``Depends`` that says so.
        max_concurrency: How many values of this declaration may be in use at the same time; None without limit.
        needs: What the dependency needs itself.
    """

    parameter: str
    call: Callable[..., Any]
    use_cache: bool
    declaration: object
    max_concurrency: int | None
    needs: tuple[Need, ...]
