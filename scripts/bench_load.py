"""The app that goes on while the cutover runs: readers and writers of users, and one transaction that takes long.

The promise: every statement is a transaction of its own and its whole duration is counted, also where it ended in the
error that the table has another name by now; the long transaction is in front of the others but not one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import asyncpg

from scripts.bench_database import Layout

READERS, WRITERS = 4, 2
PAUSE = 0.002
"""Seconds between two statements of one reader or writer."""
REST = 2.0
"""Seconds between two long transactions: one that never lets go could not be got past by anybody."""
HEAD_START = 0.5
"""Seconds that the load runs, the long transaction in front, before what is measured begins."""
IDS = 5_000
"""How many rows the readers and writers choose from."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long statements of one kind took, in seconds."""

    count: int
    median: float
    p99: float
    longest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Waits:
        if not seconds:
            return cls(0, 0.0, 0.0, 0.0)
        ordered = sorted(seconds)
        return cls(len(ordered), statistics.median(ordered), ordered[int(len(ordered) * 0.99)], ordered[-1])


@dataclass
class Load:
    """What readers and writers saw so far."""

    reads: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)

    def taken(self) -> tuple[Waits, Waits]:
        """Return the waits of readers and of writers since this was last asked."""
        reads, writes = Waits.of(self.reads), Waits.of(self.writes)
        self.reads.clear()
        self.writes.clear()
        return reads, writes


@contextlib.asynccontextmanager
async def load(url: str, layout: Layout, long_transaction: float) -> AsyncIterator[Load]:
    """Run readers, writers and the long transactions on a database until the block ends.

    Args:
        url: the database.
        layout: what is read and written there.
        long_transaction: seconds that each of the long readers lasts.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def connect() -> asyncpg.Connection[asyncpg.Record]:
            connection = await asyncpg.connect(url, server_settings={"application_name": "the app"})
            stack.push_async_callback(connection.close)
            return connection

        first = await connect()
        ids = [str(row["id"]) for row in await first.fetch(f"SELECT id FROM {layout.users} LIMIT {IDS}")]  # noqa: S608
        seen, numbers = Load(), itertools.count()

        def of_one(text: str) -> str:
            return text.format(id=random.choice(ids), number=next(numbers))  # noqa: S311 -- load

        updates_and_inserts = [layout.update, layout.insert]
        working = [_say(await connect(), (layout.read,), of_one, seen.reads) for _ in range(READERS)]
        working += [_say(await connect(), updates_and_inserts, of_one, seen.writes) for _ in range(WRITERS)]
        tasks = [asyncio.create_task(work) for work in (_read_long(first, layout, long_transaction), *working)]
        try:
            await asyncio.sleep(HEAD_START)
            yield seen
        finally:
            await _end(tasks)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """End what runs; what ended by itself did so with an error, which is raised."""
    ended = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


async def _say(
    connection: asyncpg.Connection[asyncpg.Record],
    kinds: Sequence[tuple[str, ...]],
    of_one: Callable[[str], str],
    seen: list[float],
) -> None:
    """Say one statement after the other, each kind in turn, under the names that are there."""
    spellings = [iter(kind) for kind in kinds]
    texts = [next(each) for each in spellings]
    while True:
        for number, spelling in enumerate(spellings):
            started = time.perf_counter()
            try:
                await connection.execute(of_one(texts[number]))
            except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
                texts[number] = _next(spelling)
            seen.append(time.perf_counter() - started)
            await asyncio.sleep(PAUSE)


def _next(spelling: Iterator[str]) -> str:
    found = next(spelling, None)
    if found is None:
        raise LookupError("the users table has none of the names that it should have")
    return found


async def _read_long(connection: asyncpg.Connection[asyncpg.Record], layout: Layout, seconds: float) -> None:
    """Read one row in a transaction that then lasts, again and again."""
    spelling = iter(layout.read)
    text = next(spelling)
    while True:
        try:
            async with connection.transaction():
                await connection.execute(text.format(id="00000000-0000-0000-0000-000000000000"))
                await connection.execute(f"SELECT pg_sleep({seconds})")
        except asyncpg.UndefinedTableError:
            text = _next(spelling)
        else:
            await asyncio.sleep(REST)
