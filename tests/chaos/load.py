"""The client: adds tasks at a steady rate, and keeps what it was told."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.chaos.facts import Accepted
from tests.chaos.kinds import KEYED, any_kind

if TYPE_CHECKING:
    from tests.chaos.kinds import Kind

TIMEOUT: Final = 3.0
"""Seconds after which the outcome of a request counts as unknown."""

CLIENTS: Final = 16
MOST_KINDS: Final = 3
REPEATED_KEYS: Final = 0.1
"""How often a key is sent again though its request was answered."""

KEY_ANSWERED: Final = 120.0
"""Seconds within which a key must be answered: longer than any outage that the faults make."""

AFTER_REFUSED: Final = 0.05
IN_THREAD: Final = 0.3
"""How often a sync route adds the tasks."""


class RefusedError(Exception):
    """Nobody listened: nothing was sent."""


class UnknownOutcomeError(Exception):
    """The request was sent, and no whole response came."""


@dataclass(slots=True)
class Told:
    """What the client was told.

    Attributes:
        accepted: The tasks of whole 2xx responses; one whose key was sent again comes again.
        requests: Requests that got one.
        refused: Connections that were refused.
        unavailable: Responses with 503.
        unknown: Requests whose outcome the client does not know.
        keys_again: Requests with a key that had been sent before.
        wrong: Other responses, as text.
    """

    accepted: list[Accepted] = field(default_factory=list)
    requests: int = 0
    refused: int = 0
    unavailable: int = 0
    unknown: int = 0
    keys_again: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> int:
        """How many tasks were accepted, each counted once."""
        return len({each.task_id for each in self.accepted})


async def post(port: int, path: str) -> tuple[int, bytes]:
    """Send a request over a connection of its own; return status and body once the whole response is there.

    The connection is closed then, not when the tasks have ended, and the next one may reach another worker.

    Raises:
        RefusedError: If nothing was sent.
        UnknownOutcomeError: If no whole response came.
    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        raise RefusedError from error
    try:
        async with asyncio.timeout(TIMEOUT):
            request = f"POST {path} HTTP/1.1\r\nhost: chaos\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            writer.write(request.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").lower().splitlines()
            length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
            return int(first.split()[1]), await reader.readexactly(length)
    except (OSError, EOFError, TimeoutError) as error:
        raise UnknownOutcomeError from error
    finally:
        writer.close()


class Load:
    """Sends requests until it is told to stop.

    Args:
        port: Where.
        rate: Requests a second, all clients together.
        seed: Of what is asked for.
    """

    def __init__(self, port: int, *, rate: float, seed: int) -> None:
        self.told = Told()
        self._port = port
        self._pause = CLIENTS / rate
        self._seed = seed
        self._stopping = False

    async def run(self) -> None:
        """Send until ``stop``. Keys that are open then are still sent until they are answered.

        Raises:
            TimeoutError: If that takes too long.
        """
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(self._client(random.Random(f"{self._seed} {number}")))

    def stop(self) -> None:
        """Send nothing new."""
        self._stopping = True

    async def _client(self, dice: random.Random) -> None:
        while not self._stopping:
            began = time.monotonic()
            kind = any_kind(dice)
            path = "/add-in-thread" if dice.random() < IN_THREAD else "/add"
            if kind.keyed:
                await self._add_with_key(path, kind, f"key-{uuid.UUID(int=dice.getrandbits(128))}", dice)
            else:
                kinds = [kind, *(any_kind(dice) for _ in range(dice.randrange(MOST_KINDS)))]
                await self._add(path, [each for each in kinds if not each.keyed], None)
            await asyncio.sleep(max(0.0, self._pause * dice.uniform(0.5, 1.5) - (time.monotonic() - began)))

    async def _add_with_key(self, path: str, kind: Kind, key: str, dice: random.Random) -> None:
        async with asyncio.timeout(KEY_ANSWERED):
            while not await self._add(path, [kind], key):
                self.told.keys_again += 1
        while dice.random() < REPEATED_KEYS and not self._stopping:
            self.told.keys_again += 1
            await self._add(path, [KEYED], key)

    async def _add(self, path: str, kinds: list[Kind], key: str | None) -> bool:
        """Send one request; return whether it was answered as it should be."""
        told = self.told
        query = f"?kinds={','.join(kind.name for kind in kinds)}" + (f"&key={key}" if key else "")
        try:
            status, body = await post(self._port, path + query)
        except RefusedError:
            told.refused += 1
            await asyncio.sleep(AFTER_REFUSED)
            return False
        except UnknownOutcomeError:
            told.unknown += 1
            return False
        if status == 503:
            told.unavailable += 1
            await asyncio.sleep(AFTER_REFUSED)
            return False
        if status != 200:
            told.wrong.append(f"{status} {body.decode(errors='replace')}")
            return False
        answer: dict[str, Any] = json.loads(body)
        now = time.monotonic_ns()
        told.requests += 1
        told.accepted += (
            Accepted(task_id, kind.name, key, now) for task_id, kind in zip(answer["ids"], kinds, strict=True)
        )
        return True
