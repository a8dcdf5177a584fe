"""Thousands of events in any order, each three times, while the database restarts in between: each is applied once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.api.problems import is_database_down
from app.errors import Contended, ShadowError
from app.idp.events import IdpEvent, Kind
from app.users.events import Outcome, apply_event
from app.users.identity import ShadowRules
from tests.postgres import Server
from tests.users.stated import MONDAY, SCALE

pytestmark = pytest.mark.anyio

USERS, STATEMENTS = int(500 * SCALE), 20
DELIVERIES, WORKERS = 3, 20
CUT_AT = [int(part * USERS * STATEMENTS * DELIVERIES) for part in (0.1, 0.3, 0.5, 0.7, 0.9)]
"""After so many deliveries all connections are cut."""
RESTARTS = {1, 3} if SCALE >= 1 else {2}
"""Which of the cuts are restarts of the server; at the others it stays up, and takes new connections at once."""
PAUSE = 0.02
"""Seconds after which whoever delivers looks whether the database is back."""


def story(number: int) -> Iterator[IdpEvent]:
    """Yield what the provider says of one user, one statement a minute; the last of it is what must be known.

    A third of the users is deleted in the end, another third deleted in the middle and made anew.
    """
    sub = f"u{number}"
    for minute in range(STATEMENTS):
        kind: Kind = "created" if minute == 0 else "updated"
        if (number % 3 == 0 and minute == STATEMENTS - 1) or (number % 3 == 1 and minute == STATEMENTS // 2):
            kind = "deleted"
        elif number % 3 == 1 and minute > STATEMENTS // 2:
            kind = "created"
        said = {"id": sub, "name": f"Name {minute}", "email": f"{sub}.{minute // 4}@example.com", "emailVerified": True}
        yield IdpEvent(
            id=f"{sub}-{minute}", type=f"user.{kind}", kind=kind, sub=sub,
            stated_at=datetime.fromtimestamp(MONDAY, UTC) + timedelta(minutes=minute), members=said, is_test=False,
        )  # fmt: skip


OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def query(engine: AsyncEngine, sql: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(sql))]


async def cut_all(engine: AsyncEngine) -> int:
    """End every connection to the database but the one that does it; return how many there were."""
    async with engine.connect() as connection:
        return len((await connection.execute(text(f"SELECT pg_terminate_backend(pid) {OTHERS}"))).all())


async def started_at(engine: AsyncEngine) -> datetime:
    ((moment,),) = await query(engine, "SELECT pg_postmaster_start_time()")
    assert isinstance(moment, datetime)
    return moment


async def test_each_is_applied_once_and_every_row_is_as_the_newest_statement_says(
    engine: AsyncEngine, server: Server
) -> None:
    chance = random.Random(4)
    events = [event for number in range(USERS) for event in story(number)]
    waiting = events * DELIVERIES
    chance.shuffle(waiting)
    outcomes: Counter[Outcome] = Counter()
    cut: list[int] = []
    starts = {await started_at(engine)}
    is_down, failed_meanwhile = False, 0

    async def interrupt(number: int) -> None:
        nonlocal is_down
        if number not in RESTARTS or server.restart is None:
            cut[number] = await cut_all(engine)
            return
        cut[number] = len(await query(engine, f"SELECT pid {OTHERS}"))
        is_down = True
        await asyncio.to_thread(server.restart)
        is_down = False
        starts.add(await started_at(engine))

    async def deliver() -> None:
        nonlocal failed_meanwhile
        while waiting:
            event = waiting.pop()
            try:
                outcomes[await apply_event(engine, event, ShadowRules(), on_deleted="soft")] += 1
            except (OSError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, ShadowError) as error:
                # what is answered with 503 the provider delivers again; anything else is a fault of ours
                if not (is_database_down(error) or isinstance(error, Contended)):
                    raise
                waiting.insert(chance.randrange(len(waiting) + 1), event)
                failed_meanwhile += is_down
                await asyncio.sleep(PAUSE)
            if len(cut) < len(CUT_AT) and outcomes.total() >= CUT_AT[len(cut)]:
                cut.append(0)
                await interrupt(len(cut) - 1)

    await asyncio.gather(*(deliver() for _ in range(WORKERS)))

    assert len(cut) == len(CUT_AT)
    assert all(number > 1 for number in cut)
    if server.restart is not None:
        assert len(starts) == 1 + len(RESTARTS)
        assert failed_meanwhile >= len(RESTARTS)
    assert outcomes.total() == USERS * STATEMENTS * DELIVERIES
    recorded = await query(engine, "SELECT id, outcome FROM shadow_events")
    assert sorted(id for id, _ in recorded) == sorted(event.id for event in events)
    # Where the cut came between a commit and its answer, the repetition is told from the first by its id.
    assert outcomes[Outcome.deduped] >= USERS * STATEMENTS * (DELIVERIES - 1)
    assert {outcome for _, outcome in recorded} <= {"applied", "unchanged"}

    last = STATEMENTS - 1
    expected = []
    for number in range(USERS):
        sub, newest = f"u{number}", datetime.fromtimestamp(MONDAY, UTC) + timedelta(minutes=last)
        if number % 3 == 0:
            expected.append((sub, "", f"{sub}@placeholder.invalid", False, newest, newest))
        else:
            expected.append((sub, f"Name {last}", f"{sub}.{last // 4}@example.com", True, None, newest))
    columns = "id, name, email, email_verified, deleted_at, identity_updated_at"
    assert sorted(await query(engine, f"SELECT {columns} FROM users")) == sorted(expected)
    ((deadlocks,),) = await query(
        engine, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )  # fmt: skip
    assert deadlocks == 0
