"""What follows a task, as it is stored with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fastapi_taskflow.errors import TaskArgumentError
from fastapi_taskflow.task.record import TaskRecord, TaskStatus, keyed_task_id
from fastapi_taskflow.task.registry import split_call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastapi_taskflow.task.call import Calls
    from fastapi_taskflow.task.definition import TaskDefinition
    from fastapi_taskflow.task.registry import Registry
    from fastapi_taskflow.task.step import Step

ALARM: Final = "alarm"
_WAITS: Final = '{"group":'
"""How the text of a group's callback begins."""


@dataclass(frozen=True, slots=True)
class StoredStep:
    """One step as it is stored.

    Attributes:
        name: The registered name of its function.
        target: ``module:qualname``, or None.
        payload: The arguments as stored text.
        options: Those of adding it.
        follow: What follows it, as stored text, or None.
    """

    name: str
    target: str | None
    payload: str
    options: Mapping[str, Any]
    follow: str | None


def stored_step(step: Step, registry: Registry, calls: Calls) -> dict[str, Any]:
    """Return a step as JSON.

    Raises:
        TaskArgumentError: If its function cannot be found again, or an argument cannot be stored.
    """
    func, args, kwargs = split_call(step.func, step.args, dict(step.kwargs))
    definition = registry.known(func) or registry.resolve(func)
    target, text = calls.store(func, args, kwargs)
    if text is None or (target is None and not definition.declared):
        msg = (
            f"{definition.name} cannot be a step: it is made later, maybe by another process, which finds only "
            "decorated and module-level functions, and methods of objects that can be stored"
        )
        raise TaskArgumentError(msg, argument="func")
    facts: dict[str, Any] = {"name": definition.name, "target": target, "payload": text}
    if step.options:
        facts["options"] = dict(step.options)
    return facts | _branches(step.on_success, step.on_failure, registry, calls)


def follow_text(
    on_success: Sequence[Step],
    on_failure: Sequence[Step],
    registry: Registry,
    calls: Calls,
    *,
    group_size: int | None = None,
    alarm: Sequence[Step] = (),
) -> str | None:
    """Return what follows a task as text, None if nothing does.

    Args:
        on_success: What is added when it has succeeded.
        on_failure: What is added when it has failed for good.
        registry: The known functions.
        calls: Stores calls.
        group_size: For a callback: how many members its group has.
        alarm: For a callback: what is added when a member has failed.

    Raises:
        TaskArgumentError: If a step cannot be stored.
    """
    if not (on_success or on_failure or group_size is not None):
        return None
    head = {} if group_size is None else {"group": group_size}
    return _text(head | _branches(on_success, on_failure, registry, calls, alarm))


def _branches(
    on_success: Sequence[Step],
    on_failure: Sequence[Step],
    registry: Registry,
    calls: Calls,
    alarm: Sequence[Step] = (),
) -> dict[str, Any]:
    branches = {"success": on_success, "failure": on_failure, ALARM: alarm}
    return {name: [stored_step(each, registry, calls) for each in steps] for name, steps in branches.items() if steps}


def _text(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, separators=(",", ":"))


def steps_after(record: TaskRecord) -> Sequence[StoredStep]:
    """Return what is to be added now that a task has ended."""
    branch = {TaskStatus.SUCCESS: "success", TaskStatus.FAILED: "failure"}.get(record.status)
    return () if branch is None else steps_of(record.follow, branch)


def steps_of(text: str | None, branch: str) -> Sequence[StoredStep]:
    """Return the steps of one branch: ``success``, ``failure``, or ``alarm`` of a callback."""
    return [] if text is None else [_step(facts) for facts in json.loads(text).get(branch, ())]


def _step(facts: Mapping[str, Any]) -> StoredStep:
    rest = {name: facts[name] for name in ("success", "failure") if name in facts}
    return StoredStep(
        facts["name"], facts["target"], facts["payload"], facts.get("options", {}), _text(rest) if rest else None
    )


def with_payloads(text: str, change: Callable[[str], str]) -> str:
    """Return what is stored with ``change`` made to the arguments of each step."""

    def changed(facts: dict[str, Any]) -> dict[str, Any]:
        for branch in ("success", "failure", ALARM):
            for each in facts.get(branch, ()):
                each["payload"] = change(each["payload"])
                changed(each)
        return facts

    return _text(changed(json.loads(text)))


def waits_for_group(record: TaskRecord) -> bool:
    """Tell whether a task is the callback of a group: it starts only when all members have succeeded."""
    return record.follow is not None and record.follow.startswith(_WAITS)


def group_size(record: TaskRecord) -> int:
    """Return how many members the group has that a callback waits for."""
    return int(json.loads(record.follow or "{}").get("group", 0))


def member_id(group_id: str, index: int) -> str:
    """Return the id of the first run of a group's member, counted from 0."""
    return keyed_task_id(group_id, f"member {index}")


def restored(
    step: StoredStep, calls: Calls
) -> tuple[TaskDefinition, Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]:
    """Return the call of a stored step, ready to be made.

    Raises:
        TaskArgumentError: If the function or a value's class is not there any more, or the text cannot be read.
    """
    return calls.restore(TaskRecord("", step.name, TaskStatus.PENDING, 0.0, payload=step.payload, target=step.target))
