"""A connection pooler before the database: what an engine does otherwise where there is one.

                              the server itself             a pooler
    prepared statements       kept, each by its name        none outlives its execution
    run-time parameters       sent when connecting          set at the beginning of each transaction
    one statement alone       without BEGIN                 in a transaction, for the parameters

In transaction mode (PgBouncer's `pool_mode = transaction`, and what hosts offer as their pooler) each transaction may
have another server process; what was prepared or set on the one before is not there.

The promise: nobody has to say that there is one. It is known by the process that answers and is not the one that was
announced (PostgreSQL documentation, 55.2.1, BackendKeyData), or by its refusing a parameter; and what the caller asked
for, a search_path above all, holds for each statement, or the statement fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_

Connect = Callable[[Mapping[str, str]], Awaitable["asyncpg.Connection[asyncpg.Record]"]]
"""Connects with run-time parameters."""
_ALONE = "shadow_alone"
"""The execution option of a connection whose statements are each to be committed."""


@dataclass(slots=True)
class Passage:
    """The way to a database.

    Args:
        connect: connects to it, without asyncpg's own cache of statements.
        parameters: run-time parameters that every statement runs with.
        looks: whether it is to be found out if there is a pooler; otherwise it is taken for the server itself.
    """

    connect: Connect
    parameters: Mapping[str, str]
    looks: bool
    pooled: bool = False
    """Whether a pooler was met. Then all connections are made for one, which is well with the server itself too."""
    listens: bool = False
    """Whether the engine's transactions begin with the parameters; listening takes time from every statement."""

    def open(self, engine: AsyncEngine) -> Any:
        """Return a new connection as SQLAlchemy's pool wants it."""
        driver: Any = engine.sync_engine.dialect.dbapi
        try:
            connection = await_(self._connect())
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            failure = error

            async def fail() -> asyncpg.Connection[asyncpg.Record]:
                raise failure

            return driver.connect(async_creator_fn=fail)  # which makes SQLAlchemy's error of it

        if self.pooled and not self.listens:
            self._listen(engine)

        async def made() -> asyncpg.Connection[asyncpg.Record]:
            return connection

        # A name that is used twice, in this process or another, is an error behind a pooler that hands its servers on
        # with what was prepared there; without one, each execution brings the statement's text along.
        name = (lambda: "") if self.pooled else (lambda: f"shadow_{uuid4().hex}")
        uncached = {"prepared_statement_cache_size": 0} if self.pooled else {}
        return driver.connect(async_creator_fn=made, prepared_statement_name_func=name, **uncached)

    def _listen(self, engine: AsyncEngine) -> None:
        # in time for the transaction that this connection is opened for: SQLAlchemy looks for listeners afterwards
        self.listens = True
        event.listen(engine.sync_engine, "set_connection_execution_options", self._ask_for_transaction)
        event.listen(engine.sync_engine, "begin", self._set_parameters)
        event.listen(engine.sync_engine, "rollback", self._commit_what_is_alone)

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        if not self.looks:
            return await self.connect(self.parameters)
        if self.pooled:
            return await self.connect({})
        try:
            connection = await self.connect(self.parameters)
        except asyncpg.ProtocolViolationError:
            # PostgreSQL itself has no objection to them; a pooler passes on those it was told of
            connection = await self.connect({})
            self.pooled = True
            return connection
        with ExitStack() as undoing:
            undoing.callback(connection.terminate)
            answers = await connection.fetchval("SELECT pg_backend_pid()")
            undoing.pop_all()
        self.pooled |= answers != connection.get_server_pid()
        return connection

    def _ask_for_transaction(self, _: Connection, options: dict[str, Any]) -> None:
        if self.pooled and (level := options.get("isolation_level")):
            options[_ALONE] = level == "AUTOCOMMIT"
            if options[_ALONE]:
                options["isolation_level"] = "READ COMMITTED"

    def _set_parameters(self, connection: Connection) -> None:
        if self.pooled and self.parameters:
            calls = ", ".join(f"set_config(${2 * n + 1}, ${2 * n + 2}, true)" for n in range(len(self.parameters)))
            given = tuple(text for pair in self.parameters.items() for text in pair)
            connection.exec_driver_sql(f"SELECT {calls}", given)

    def _commit_what_is_alone(self, connection: Connection) -> None:
        # who needs no transaction does not end one; after an error PostgreSQL rolls back at COMMIT as well
        if not connection.get_execution_options().get(_ALONE) or connection.invalidated:
            return
        driver: Any = connection.connection.dbapi_connection
        drivers: Any = connection.dialect.loaded_dbapi
        # Of what a listener raises SQLAlchemy makes no error of its own, nor does it give the connection back.
        try:
            driver.commit()
        except TimeoutError as error:
            _abandon(connection, error)
            raise TimeoutError("no answer to COMMIT in time") from error
        except drivers.Error as error:
            # PostgreSQL's own word on a transaction has a SQLSTATE, and may leave the connection as it was
            lost = getattr(error, "sqlstate", None) is None or connection.dialect.is_disconnect(error, driver, None)
            _abandon(connection, error)
            raise DBAPIError.instance(
                "COMMIT", None, error, drivers.Error, connection_invalidated=lost, dialect=connection.dialect
            ) from error


def _abandon(connection: Connection, error: Exception) -> None:
    if (driver := connection.connection.driver_connection) is not None:
        driver.terminate()  # closing it would wait for an answer again
    connection.invalidate(error)
