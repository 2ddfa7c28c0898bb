"""Calls that are made later: what follows a task, and what a chain is made of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.task.arguments import require_callable
from fastapi_taskflow.task.placing import placed, seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

MAX_STEPS: Final = 100
"""Steps of a chain: each is stored with all that come after it."""


class Placeholder(Enum):
    """What stands for a value that is not known yet."""

    PREVIOUS_RESULT = "previous_result"


previous_result: Final[Any] = Placeholder.PREVIOUS_RESULT
"""As an argument of a step: what the task before it returned, for a group's callback the list of all results."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call with its options. Make it with `step` or `chain`.

    Attributes:
        func: What is called.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        options: The options of adding it that were given: ``tags``, ``queue``, ``priority``, ``delay``, ``expires``.
        on_success: What is added when it has succeeded.
        on_failure: What is added when it has failed for good.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    on_success: tuple[Step, ...] = ()
    on_failure: tuple[Step, ...] = ()

    @property
    def depth(self) -> int:
        """How many steps follow each other at most, this one included."""
        return 1 + max((each.depth for each in (*self.on_success, *self.on_failure)), default=0)

    @property
    def awaits_result(self) -> bool:
        """Whether an argument is the result of what comes before."""
        return awaits_result(self.args, self.kwargs)


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Tasks that were added together.

    Attributes:
        group_id: What they have in common; with a callback its task's id, so that one can wait for it or cancel it.
        task_ids: Those of the members, in their order.
    """

    group_id: str
    task_ids: tuple[str, ...]


Steps = Step | list[Step] | tuple[Step, ...] | None
"""What ``on_success`` and ``on_failure`` take."""


def step(
    func: Callable[..., Any],
    /,
    *args: Any,
    tags: Sequence[str] = (),
    queue: str | None = None,
    priority: int | None = None,
    delay: float | timedelta | None = None,
    expires: float | timedelta | None = None,
    on_success: Steps = None,
    on_failure: Steps = None,
    **kwargs: Any,
) -> Step:
    """Return a call that is made later, with its options.

    Args:
        func: A function that is found again by its name: decorated, or at the top of a module.
        *args: Its positional arguments. `previous_result` stands for what the task before it returned.
        tags: Labels to find it by.
        queue: The queue that it waits in, instead of its definition's.
        priority: Higher runs first within the queue, instead of its definition's.
        delay: Seconds, or a ``timedelta``, from when it is added, before which it does not run.
        expires: Seconds, or a ``timedelta``, from when it is added, after which it is cancelled if it has not started.
        on_success: What is added when it has succeeded.
        on_failure: What is added when it has failed for good.
        **kwargs: Its keyword arguments.

    Raises:
        ConfigurationError: If ``func`` is not callable, or an option is wrong.
    """
    require_callable(func)
    options: dict[str, Any] = {
        "tags": tuple(tags) if isinstance(tags, list | set | frozenset) else tags, "queue": queue,
        "priority": priority, "delay": delay, "expires": expires,
    }  # fmt: skip
    options = {name: value for name, value in options.items() if value is not None and value != ()}
    placed(**options)
    for name in options.keys() & {"delay", "expires"}:
        options[name] = seconds_of(name, options[name])
    return checked(
        Step(func, args, kwargs, options, checked_steps("on_success", on_success), failure_steps(on_failure))
    )


def chain(first: Step, /, *rest: Step, on_failure: Steps = None) -> Step:
    """Return the first step, each followed by the next one once it has succeeded.

    Args:
        first: The first step.
        *rest: Those that follow.
        on_failure: What is added when any of them has failed for good; the rest of the chain then never is.

    Raises:
        ConfigurationError: If something else than a step is among them, or there are more than 100.
    """
    alarms = failure_steps(on_failure)
    whole: Step | None = None
    if len(rest) >= MAX_STEPS:
        raise ConfigurationError(_too_long(1 + len(rest)))
    for each in reversed((first, *rest)):
        (own,) = checked_steps("a chain", each)
        if whole is not None and own.on_success:
            msg = f"what follows {own.func!r} in the chain is the next step: put its on_success= there, as a step"
            raise ConfigurationError(msg)
        after = own.on_success if whole is None else (whole,)
        whole = replace(own, on_success=after, on_failure=(*own.on_failure, *alarms))
    assert whole is not None  # noqa: S101 - there is a first one
    return checked(whole)


def checked_group(steps: object, callback: object, on_failure: object) -> tuple[Step, ...]:
    """Return the members of a group.

    Raises:
        ConfigurationError: If there are none, something follows one, or ``on_failure`` is there without a callback.
    """
    if isinstance(steps, Step) or not isinstance(steps, list | tuple):
        msg = f"a group takes a list of steps, not {steps!r}"
        raise ConfigurationError(msg)
    members = checked_steps("a group", steps)
    if not members:
        msg = "a group needs at least one step"
        raise ConfigurationError(msg)
    if callback is not None and not isinstance(callback, Step):
        msg = f"callback takes a step, such as step(send_report), not {callback!r}"
        raise ConfigurationError(msg)
    if callback is None and on_failure is not None:
        msg = "on_failure of a group needs a callback; without one give it to the steps"
        raise ConfigurationError(msg)
    for each in members:
        if each.on_success:
            msg = (
                f"{each.func!r} cannot be a member with on_success or a chain, as the group would not wait for what "
                "follows it: let the function do all of it, or add the rest by the callback"
            )
            raise ConfigurationError(msg)
    return members


def whole_step(
    func: Callable[..., Any] | Step,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    on_success: Steps,
    on_failure: Steps,
) -> Step:
    """Return what ``add_task`` was given, with all that follows it.

    Raises:
        ConfigurationError: If something else than a step is to follow, or a step gets arguments.
    """
    if not isinstance(func, Step):
        require_callable(func)
        func = Step(func, args, kwargs)
    elif args or kwargs:
        msg = f"a step has its arguments already: give them to step(…), not {', '.join([*map(repr, args), *kwargs])}"
        raise ConfigurationError(msg)
    return checked(
        replace(
            func,
            on_success=(*func.on_success, *checked_steps("on_success", on_success)),
            on_failure=(*func.on_failure, *failure_steps(on_failure)),
        )
    )


def checked_steps(name: str, steps: object) -> tuple[Step, ...]:
    """Return what ``on_success`` and the like were given as a tuple.

    Raises:
        ConfigurationError: If something else than a step is among them.
    """
    if steps is None:
        return ()
    found = tuple(steps) if isinstance(steps, list | tuple) else (steps,)
    for each in found:
        if not isinstance(each, Step):
            msg = f"{name} takes steps, such as step(send_email, address), not {each!r}"
            raise ConfigurationError(msg)
    return found


def failure_steps(steps: object) -> tuple[Step, ...]:
    """Return what ``on_failure`` was given as a tuple.

    Raises:
        ConfigurationError: If something else than a step is among them, or one waits for a result.
    """
    found = checked_steps("on_failure", steps)
    for each in found:
        if each.awaits_result:
            msg = f"on_failure has a step of {each.func!r} with previous_result, but what has failed returned nothing"
            raise ConfigurationError(msg)
    return found


def checked(whole: Step) -> Step:
    """Return ``whole``, if it is not too long.

    Raises:
        ConfigurationError: If it is.
    """
    if whole.depth > MAX_STEPS:
        raise ConfigurationError(_too_long(whole.depth))
    return whole


def _too_long(count: int) -> str:
    return (
        f"{count} steps follow each other, but at most {MAX_STEPS} may, as each is stored with all that come after it: "
        "let one of them add the next tasks"
    )


def awaits_result(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether an argument stands for the result of what comes before."""
    return any(value is previous_result for value in (*args, *kwargs.values()))


def filled(args: Sequence[Any], kwargs: Mapping[str, Any], value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with ``value`` in the place of `previous_result`."""
    return (
        tuple(value if each is previous_result else each for each in args),
        {name: value if each is previous_result else each for name, each in kwargs.items()},
    )
