"""Whether rows of users may hold what retire puts where nothing is: a check, a unique index or a domain may forbid it.

The promise: nothing is written, and nothing is counted unless something over such a column could forbid it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.cutover import stops
from app.cutover.catalog import Snapshot, literal, quoted
from app.cutover.changes import Changes
from app.cutover.findings import Complaint

CHECK, UNIQUE, DOMAIN = "filled check", "filled index", "filled domain"
"""Kinds of complaints; their identity is the constraint's, index's or column's name, their words what comes of it."""
KINDS = frozenset({CHECK, UNIQUE, DOMAIN})
_EXPRESSION = re.compile(r"CHECK \((?P<is>.*)\)(?: NO INHERIT)?(?: NOT VALID)?", re.DOTALL)


def forbidden(connection: Connection, snapshot: Snapshot, changes: Changes) -> Iterator[Complaint]:
    """Yield the checks and unique indexes that would forbid a value, with the SQL that drops them."""
    users = changes.users
    filled = {fill.column.name: f"coalesce({quoted(fill.column.name)}, {fill.value})" for fill in changes.fills}
    if not filled or not snapshot.sees(users):
        return
    missing = " OR ".join(f"{quoted(name)} IS NULL" for name in filled)
    columns = ", ".join(
        f"{filled.get(column.name, quoted(column.name))} AS {quoted(column.name)}" for column in users.columns
    )
    rows, name = f"SELECT {columns} FROM {users.sql}", quoted(users.name)
    for fill in changes.fills:
        if fill.column.type_kind == "d":
            given = f"count(({fill.value})::{fill.column.type})"
            sql = f"SELECT {given} * 0 FROM {users.sql} WHERE {quoted(fill.column.name)} IS NULL"
            if words := _counted(connection, sql):
                yield Complaint(DOMAIN, fill.column.name, None, words)
    for constraint in users.constraints:
        found = _EXPRESSION.fullmatch(constraint.definition)
        if constraint.kind == "c" and found is not None and filled.keys() & set(constraint.columns):
            sql = f"SELECT count(*) FROM ({rows} WHERE {missing}) AS {name} WHERE NOT ({found['is']})"
            if words := _counted(connection, sql):
                drop = f"ALTER TABLE {users.sql} DROP CONSTRAINT {quoted(constraint.name)}"
                yield Complaint(CHECK, constraint.name, drop, words)
    owned = {constraint.name for constraint in users.constraints if constraint.kind in "pux"}
    over = {each.name: filled.keys() & set(each.columns) for each in users.constraints}
    over |= {each.name: filled.keys() & set(each.columns) for each in users.indexes}
    for index, keys, predicate in unique(connection, users.sql):
        if over.get(index):
            where = f" WHERE {predicate}" if predicate else ""
            none = " AND ".join(f"({key}) IS NOT NULL" for key in keys)
            groups = f"SELECT count(*) AS n FROM ({rows}) AS {name}{where} GROUP BY {', '.join(keys)}"
            sql = f"SELECT coalesce(sum(n), 0) FROM ({groups} HAVING count(*) > 1 AND {none}) AS alike"
            if words := _counted(connection, sql):
                change = f"ALTER TABLE {users.sql} DROP CONSTRAINT {quoted(index)}"
                drop = change if index in owned else f"DROP INDEX {quoted(users.schema, index)}"
                yield Complaint(UNIQUE, index, drop, words)


def _counted(connection: Connection, sql: str) -> str | None:
    """Return how many rows are concerned, or what PostgreSQL says; None where it is none and nothing."""
    try:
        with connection.begin_nested():
            count = int(connection.exec_driver_sql(sql).scalar_one())
    except DBAPIError as error:
        return stops.unraised(error)
    return f"{count:,} row{'s' if count > 1 else ''}" if count else None


def unique(connection: Connection, table: str) -> Iterator[tuple[str, list[str], str | None]]:
    """Yield the name, the keys and the predicate of each unique index of a table, as SQL."""
    yield from connection.exec_driver_sql(
        f"""SELECT x.relname::text, ARRAY(SELECT pg_get_indexdef(x.oid, n, false)
                                          FROM generate_series(1, i.indnkeyatts) n), pg_get_expr(i.indpred, i.indrelid)
        FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        WHERE i.indrelid = {literal(table)}::regclass AND i.indisunique AND i.indislive ORDER BY 1"""
    ).all()
