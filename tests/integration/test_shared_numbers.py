"""Metrics of a host's workers on a database server, where two can write at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fastapi_taskflow.stores.postgresql import PostgresqlStore
from tests import postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.postgres

ROUNDS = 25


@pytest.fixture
def database() -> Iterator[str]:
    """An empty database."""
    with postgresql.database() as url:
        yield url


def add_up(texts: Sequence[str]) -> str:
    """Return the sum."""
    return str(sum(map(int, texts)))


async def test_two_that_put_different_ones_together_lose_nothing(database: str) -> None:
    """They have seen different ones go; the sum of all stays the same, from the first time on."""
    stores = [PostgresqlStore(database) for _ in range(3)]
    for store in stores:
        await store.open()
    total = 0
    try:
        for round_ in range(ROUNDS):
            host = f"host-{round_ % 5}"
            keys = [f"{round_}-{number}" for number in range(4)]
            for key in keys:
                await stores[0].save_numbers(key, host, "1")
            lists = ([keys[0], keys[1]], [keys[1], keys[2]], [keys[3], keys[0]])
            async with asyncio.TaskGroup() as group:
                for store, gone in zip(stores, lists, strict=True):
                    group.create_task(store.merge_numbers(host, gone, "gone", add_up))
            total = sum([int(text) for n in range(5) for text in (await stores[0].numbers(f"host-{n}")).values()])
            assert total == 4 * (round_ + 1)
            assert set(await stores[0].numbers(host)) == {"gone"}
    finally:
        for store in stores:
            await store.close()
    assert total == 4 * ROUNDS
