"""What a command works on: a store by its URL or file, or that of an application's manager."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING

from fastapi_taskflow.errors import ConfigurationError
from fastapi_taskflow.manager import TaskManager, store_from

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fastapi_taskflow.store import Store
    from fastapi_taskflow.task.record import TaskRecord


def manager_from(name: str) -> TaskManager:
    """Return the manager that ``module:attribute`` names.

    Raises:
        ConfigurationError: If there is none, or it is something else.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        msg = f"--app must be such as shop.main:task_manager, not {name!r}"
        raise ConfigurationError(msg)
    if os.getcwd() not in sys.path:  # noqa: PTH109 - compared with text
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        found = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        msg = f"--app {name}: {error}"
        raise ConfigurationError(msg) from error
    if not isinstance(found, TaskManager):
        msg = f"--app must name a TaskManager; {name} is {type(found).__name__}"
        raise ConfigurationError(msg)
    return found


def chosen_store(store: str | None, app: str | None) -> Store:
    """Return the store that the options name, not open.

    Raises:
        ConfigurationError: If they name none, or two, or one in memory.
    """
    if (store is None) == (app is None):
        msg = "give --store (a URL or the path of a SQLite file) or --app module:task_manager"
        raise ConfigurationError(msg)
    if app is not None:
        made = manager_from(app).store
    elif store is not None and "://" in store:
        made = store_from(None, store)
    else:
        made = store_from(store, None)
    if not made.persistent:
        msg = f"--app {app} keeps its tasks in memory: there is nothing for another process to see"
        raise ConfigurationError(msg)
    return made


def clear_of(app: str | None) -> Callable[[TaskRecord], TaskRecord]:
    """Return what makes records that may be shown: as the application says, where it is named."""
    return (lambda record: record) if app is None else manager_from(app).clear


@contextlib.asynccontextmanager
async def opened(store: Store) -> AsyncIterator[Store]:
    """Open a store for a while.

    Raises:
        StoreError: If it cannot be opened.
    """
    await store.open()
    try:
        yield store
    finally:
        await store.close()
