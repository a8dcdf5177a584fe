"""Erasure: a user's row goes with all that cascades from it, and a tombstone stays, so that no token makes it anew.

    users ─┬─ ON DELETE CASCADE ──▶ goes, and so on from there
           ├─ SET NULL, SET DEFAULT ──▶ stays, emptied
           └─ NO ACTION, RESTRICT ──▶ blocks, unless the row goes by another way

The promise: `survey` reads and changes nothing; `erase` is one transaction, and what PostgreSQL forbids is not done in
part. Beside an old app `users` is a view, and the foreign keys are those to the table behind it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import delete
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.errors import NotMigrated
from app.users.identity import Identity
from app.users.model import User
from app.users.rows import add, hold, lock_addresses, persistently, read, sqlstate, transaction

Fate = Literal["goes", "emptied", "blocks"]

_FATES: dict[str, Fate] = {"c": "goes", "n": "emptied", "d": "emptied", "a": "blocks", "r": "blocks"}
"""By pg_constraint.confdeltype."""
_ROW_NEEDED = frozenset({"23503", "23001", "23502", "23514"})
"""SQLSTATEs of a deletion that a foreign key forbids, or an emptied column that must have a value."""
_PASSING = re.compile("08|25|40|53|57|58|0A000|55P03")
"""What the SQLSTATEs of failures begin with that another try may not meet; whatever else comes forbids it."""


class Blocked(Exception):
    """Something forbids the deletion; nothing was changed. The message says what."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The rows of one table that refer, by one foreign key, to what goes."""

    table: str
    """As SQL."""
    key: str
    fate: Fate
    rows: int | None
    """None: who asks may not read the table, or not every row of it."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What erasing a user would do."""

    table: str
    """Where the row itself is, as SQL."""
    found: bool
    reaches: tuple[Reach, ...]
    """In the order in which they are reached, each with rows or unread."""

    @property
    def blocked(self) -> bool:
        """Whether a foreign key is known to forbid it."""
        return any(reach.fate == "blocks" and reach.rows for reach in self.reaches)


async def survey(engine: AsyncEngine, sub: str) -> Survey:
    """Return what erasing a user would do, counted at one moment.

    Raises:
        NotMigrated: the database has no users table.
    """
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        async with connection.begin():
            try:
                return await _survey(connection, sub)
            except DBAPIError as error:
                if sqlstate(error) != "42P01":
                    raise
                raise NotMigrated("There is no users table: run the migrations.") from error


async def erase(engine: AsyncEngine, sub: str) -> None:
    """Delete the row and what cascades from it, and leave a tombstone; also where there was no row.

    Raises:
        Blocked: something forbids it, and nothing was changed.
        Contended, NotMigrated: see there.
    """

    async def attempt() -> None:
        async with transaction(engine) as connection:
            await lock_addresses(connection, {Identity.silent(sub, datetime.now(UTC)).address})
            await erase_row(connection, sub, now := datetime.now(UTC), now)

    await persistently(attempt)


async def erase_row(connection: AsyncConnection, sub: str, stated_at: datetime, deleted_at: datetime) -> None:
    """Put a tombstone in the row's place; its address, a placeholder, is locked by the caller.

    Args:
        connection: in a `transaction`.
        sub: whose row.
        stated_at: when the provider said so.
        deleted_at: since when the account is deleted; what is stated of a user made anew before that is late.

    Raises:
        Blocked: something forbids it; the transaction goes on as if it had not been tried.
    """
    silent = Identity.silent(sub, stated_at)
    try:
        async with connection.begin_nested():
            await connection.execute(delete(User).where(User.id == sub))
            # a key that is looked at only when the transaction ends would forbid it too late
            await connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
            if await read(connection, sub) is not None:
                raise Blocked("the row stayed: a trigger or a rule of the table, or a view, keeps it")
            await hold(connection, silent, lambda address: add(connection, silent, address, deleted_at=deleted_at))
    except DBAPIError as error:
        reason = _blocks(error)
        if reason is None:
            raise
        raise Blocked(reason) from error


def _blocks(error: DBAPIError) -> str | None:
    """Return what forbids the deletion; None if this is another failure."""
    state = sqlstate(error)
    if state is None or error.connection_invalidated or _PASSING.match(state):
        return None
    if state == "42501":
        return "the role of the server may not delete there"
    if state == "P0001":
        return "a trigger of the database forbids it"
    if state not in _ROW_NEEDED:
        return f"a trigger or a rule of the database forbids it ({state})"  # its own words may name the user
    cause = error.orig and error.orig.__cause__
    table, key = getattr(cause, "table_name", None), getattr(cause, "constraint_name", None)
    return f"rows of {table} need the user ({key or 'a column that must have a value'})"


@dataclass(frozen=True, slots=True)
class _Key:
    name: str
    table: int
    sql: str
    scanned: str
    columns: Sequence[str]
    target_sql: str
    target_columns: Sequence[str]
    fate: Fate
    readable: bool


_Places = set[tuple[int, str]]
"""Rows, by the table that holds them and their place in it (tableoid, ctid)."""

# Names that are put into SQL come from the catalogue, quoted by PostgreSQL.
_SQL_NAME = "quote_ident(n.nspname) || '.' || quote_ident(c.relname)"
# all partitions of a table, but none that inherit from it
_SCANNED = f"CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || {_SQL_NAME}"
_TABLE = f"""
SELECT c.relkind::text, {_SQL_NAME}, {_SCANNED}, quote_ident(a.attname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = $2::int2 WHERE c.oid = $1::oid"""  # noqa: S608
# of a view's column, which column of which table it is: so its rule says
_BEHIND = """
SELECT m[1]::oid, m[2]::int FROM pg_rewrite r, regexp_matches(r.ev_action::text,
    ':resno ' || $2::int || ' :resname \\S+ :ressortgroupref \\d+ :resorigtbl (\\d+) :resorigcol (\\d+)') m
WHERE r.ev_class = $1::oid AND r.ev_type = '1'"""
_ID = "SELECT attrelid, attnum::int FROM pg_attribute WHERE attrelid = 'users'::regclass AND attname = 'id'"


def _names(relation: str, numbers: str) -> str:
    return f"""ARRAY(SELECT quote_ident(a.attname) FROM unnest({numbers}) WITH ORDINALITY u (attnum, n)
        JOIN pg_attribute a ON a.attrelid = {relation} AND a.attnum = u.attnum ORDER BY u.n)"""  # noqa: S608


# whether the query for the rows succeeds, and no policy hides one: what cascades from a key goes past policies
_READABLE = """has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(c.relnamespace, 'USAGE')
       AND NOT row_security_active(c.oid)"""
_KEYS = f"""
SELECT k.conname, k.conrelid, {_SQL_NAME}, {_SCANNED}, {_names("k.conrelid", "k.conkey")}, k.confrelid::regclass::text,
       {_names("k.confrelid", "k.confkey")}, k.confdeltype::text, {_READABLE}
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = $1::oid
ORDER BY 3, 1"""  # noqa: S608


async def _survey(connection: AsyncConnection, sub: str) -> Survey:
    oid, table, scanned, id_column = await _users(connection)
    mine = f"SELECT tableoid, ctid::text FROM {scanned} WHERE {id_column} = $1"  # noqa: S608
    rows = await _rows(connection, mine, sub)
    start: _Places = {tuple(row) for row in rows}
    going: dict[int, _Places] = {oid: start}
    keys: dict[int, list[_Key]] = {}
    reached: dict[_Key, _Places] = {}
    unread: dict[_Key, None] = {}
    ahead = [(oid, start)] if start else []
    while ahead:
        target, places = ahead.pop(0)
        if target not in keys:
            keys[target] = [_key(row) for row in await _rows(connection, _KEYS, target)]
        for key in keys[target]:
            if not key.readable:
                unread[key] = None
                continue
            found = await _referring(connection, key, places)
            reached.setdefault(key, set()).update(found)
            if key.fate == "goes" and (new := found - going.setdefault(key.table, set())):
                going[key.table] |= new
                ahead.append((key.table, new))
    reaches = []
    for key, found in reached.items():
        left = found if key.fate == "goes" else found - going.get(key.table, set())
        if left:
            reaches.append(Reach(key.sql, key.name, key.fate, len(left)))
    reaches += [Reach(key.sql, key.name, key.fate, None) for key in unread]
    return Survey(table, bool(start), tuple(reaches))


async def _users(connection: AsyncConnection) -> tuple[int, str, str, str]:
    """Return the table behind `users`: its oid, its name, what is to be scanned, and its column of ids."""
    ((oid, column),) = await _rows(connection, _ID)
    while True:
        ((kind, table, scanned, id_column),) = await _rows(connection, _TABLE, oid, column)
        if kind != "v":
            return oid, table, scanned, id_column
        ((oid, column),) = await _rows(connection, _BEHIND, oid, column)


async def _referring(connection: AsyncConnection, key: _Key, places: _Places) -> _Places:
    """Return the rows that refer to rows in some places."""
    tables, ctids = zip(*sorted(places), strict=True)
    pairs = zip(key.columns, key.target_columns, strict=True)
    same = " AND ".join(f"t.{theirs} = r.{own}" for own, theirs in pairs)
    sql = f"""SELECT r.tableoid, r.ctid::text FROM {key.scanned} r WHERE EXISTS (
        SELECT FROM {key.target_sql} t JOIN unnest($1::oid[], $2::text[]) w (tableoid, ctid)
        ON t.tableoid = w.tableoid AND t.ctid = w.ctid::tid WHERE {same})"""  # noqa: S608
    return {tuple(row) for row in await _rows(connection, sql, list(tables), list(ctids))}


def _key(row: Sequence[Any]) -> _Key:
    name, table, sql, scanned, columns, target_sql, target_columns, action, readable = row
    return _Key(
        name, table, sql, scanned, tuple(columns), target_sql, tuple(target_columns), _FATES[action], readable
    )  # fmt: skip


async def _rows(connection: AsyncConnection, sql: str, *values: Any) -> Sequence[Any]:
    return (await connection.exec_driver_sql(sql, values)).all()
