"""People who go on signing up and in, being banned and leaving while the cutover runs: through the old app's statements
and through the server's, whichever work at the moment.

The promise: what the database confirmed is remembered, and `missing` names what of it is not there any more.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import asyncpg

from tests.cutover.witness import Witness

PEOPLE = 3
_NOT_AT_THE_MOMENT = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError)
"""The old app after retire, the server before it."""
_CUT = (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.OperatorInterventionError)


@dataclass
class Account:
    """What was confirmed of somebody."""

    email: str
    ban_reason: str | None = None
    sessions: set[str] = field(default_factory=set)


@dataclass
class Crowd:
    """The ledger of all that was confirmed."""

    url: str
    accounts: dict[str, Account] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    surprises: list[str] = field(default_factory=list)
    """Answers that an app would not expect, whatever the cutover does."""
    _stop: threading.Event = field(default_factory=threading.Event)

    def missing(self, database: Witness) -> list[str]:
        """Return what was confirmed and is not so, where the tables have the old app's names."""
        users = {row["id"]: row for row in database.ask('SELECT id::text, email, "banReason" FROM "user"')}
        sessions = {row["id"] for row in database.ask("SELECT id::text FROM session")}
        found = [f"{id} is there again" for id in self.left & set(users)]
        for id, account in self.accounts.items():
            if id not in users:
                found.append(f"{account.email} is not there")
                continue
            if (users[id]["email"], users[id]["banReason"]) != (account.email, account.ban_reason):
                found.append(f"{account} is {users[id]}")
            found += [f"a session of {account.email} is not there" for _ in account.sessions - sessions]
        return found

    async def live(self) -> None:
        await asyncio.gather(*(self._live() for _ in range(PEOPLE)))

    async def _live(self) -> None:
        connection: asyncpg.Connection | None = None
        coming = (self._sign_up, self._provision)
        while not self._stop.is_set():
            # as long as there are so many, nobody finds the ledger empty
            enough = len(self.accounts) > PEOPLE
            act = random.choice((*coming, self._sign_in, self._ban, self._leave) if enough else coming)
            try:
                if connection is None:
                    connection = await asyncpg.connect(self.url, statement_cache_size=0)
                await act(connection)
            except _NOT_AT_THE_MOMENT:
                await asyncio.sleep(0.005)
            except _CUT:
                connection = None
                await asyncio.sleep(0.05)
            except asyncpg.PostgresError as error:
                self.surprises.append(f"{act.__name__}: {error.sqlstate} {error}")
        if connection is not None:
            await connection.close()

    async def _sign_up(self, connection: asyncpg.Connection) -> None:
        id = str(uuid4())
        account = Account(f"{id}@example.com")
        async with connection.transaction():
            await connection.execute(
                'INSERT INTO "user" (id, name, email, "emailVerified", "createdAt", "updatedAt", role) '
                "VALUES ($1, 'Somebody', $2, true, now(), now(), 'user')",
                id, account.email,
            )  # fmt: skip
            account.sessions.add(await _new_session(connection, id))
        self.accounts[id] = account

    async def _provision(self, connection: asyncpg.Connection) -> None:
        id = str(uuid4())
        account = Account(f"{id}@example.com")
        await connection.execute("INSERT INTO users (id, name, email) VALUES ($1, 'Somebody', $2)", id, account.email)
        self.accounts[id] = account

    async def _sign_in(self, connection: asyncpg.Connection) -> None:
        with self._somebody() as (id, account):
            account.sessions.add(await _new_session(connection, id))

    async def _ban(self, connection: asyncpg.Connection) -> None:
        reason = str(uuid4())
        with self._somebody() as (id, account):
            await connection.execute('UPDATE "user" SET banned = true, "banReason" = $2 WHERE id = $1', id, reason)
            account.ban_reason = reason

    async def _leave(self, connection: asyncpg.Connection) -> None:
        with self._somebody() as (id, _):
            await connection.execute('DELETE FROM "user" WHERE id = $1', id)
            self.left.add(id)
        self.accounts.pop(id)

    @contextmanager
    def _somebody(self) -> Iterator[tuple[str, Account]]:
        """Take somebody out of the ledger, and put them back unless nobody knows whether it was done."""
        id = random.choice([*self.accounts])
        account = self.accounts.pop(id)
        try:
            yield id, account
        except _CUT:
            raise
        except asyncpg.PostgresError:
            self.accounts[id] = account
            raise
        self.accounts[id] = account


async def _new_session(connection: asyncpg.Connection, user: str) -> str:
    id = str(uuid4())
    await connection.execute(
        'INSERT INTO session (id, "expiresAt", token, "createdAt", "updatedAt", "userId") '
        "VALUES ($1, now() + interval '1 day', $2, now(), now(), $3)",
        id, id, user,
    )  # fmt: skip
    return id


@contextmanager
def crowd(url: str) -> Iterator[Crowd]:
    """Let people live on a database in the layout of Better Auth's defaults, until the end of the block."""
    people = Crowd(url)
    thread = threading.Thread(target=lambda: asyncio.run(people.live()))
    thread.start()
    try:
        yield people
    finally:
        people._stop.set()
        thread.join()
