"""Before a revision is undone: what was recorded of it, and what was written since that could not be kept.

The promise: undoing loses nothing that it does not name first.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from app.cutover import catalog, journal, misfits, orphans, release, restore, since, standing
from app.cutover.catalog import EVENTS, JOURNAL, STANDING, Dependent, ForeignKey, Snapshot, Table, literal, quoted
from app.cutover.changes import children
from app.cutover.findings import Action, Finding, Options
from app.cutover.layout import (
    KEPT_COLUMNS,
    RETIRED_SCHEMA,
    is_beside,
    is_retired_for,
    retired_comment,
    without_beside,
)
from app.cutover.names import with_suffix
from app.cutover.rules.by_hand import anew
from app.cutover.shapes import stand_in
from app.cutover.signatures import ADDED_COLUMNS, TARGET_COLUMNS, USERS


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the journal has of the last time an action was taken."""

    before: Mapping[str, Any]
    undo: Sequence[str]


def recorded(connection: Connection, schema: str, action: Action) -> Recorded | None:
    """Return what the journal has of an action; None where it has nothing."""
    found = connection.exec_driver_sql(
        f"SELECT before, undo FROM {quoted(schema, JOURNAL)} WHERE action = {literal(action)} ORDER BY id DESC LIMIT 1"
    ).one_or_none()
    return None if found is None else Recorded(*found)


def kept_in(connection: Connection, statement: str) -> str | None:
    """Return the table of kept rows that a statement of undo would bring back; None where it is none, or it is gone."""
    for name in journal.KEPT_TABLES:
        kept = quoted(RETIRED_SCHEMA, name)
        if f"FROM {kept} " in statement:
            there = connection.exec_driver_sql(f"SELECT to_regclass({literal(kept)}) IS NOT NULL").scalar_one()
            return kept if there else None
    return None


def examine(
    connection: Connection,
    schema: str,
    action: Action,
    before: Mapping[str, Any],
    statements: Sequence[str],
    options: Options,
) -> Iterator[Finding]:
    """Return what stands in the way of undoing an action."""
    snapshot = catalog.read(connection)
    users = snapshot.table(schema, USERS)
    yield from journal.not_given(snapshot, schema)
    yield from (stops := list(since.examine(connection, snapshot, schema, before, statements)))
    if {"row-security", "missing-privileges"} & {found.code for found in stops}:
        return  # rows could not be counted
    yield from standing.changed(
        snapshot, before, statements, options, lambda: standing.is_untouched(connection, schema, action)
    )
    if action == "adopt":
        yield from _adopt_losses(connection, snapshot, before, statements, options)
        where = next((table for table in snapshot.tables if table.sql == (before["users"] or before["target"])), None)
        dropped = "\n".join(statements)
        views = [table for table in snapshot.tables if is_beside(table)]
        going = {(table.key, column.name) for table in views for column in table.columns}
        if where is not None:
            names = set(re.findall(r"DROP COLUMN IF EXISTS (\w+)", dropped))
            whole = [where, *children(snapshot, where)]
            going |= {(table.key, name) for table in whole for name in names & TARGET_COLUMNS.keys()}
        yield from _resting_on(snapshot, going)
        yield from _over(snapshot, going)
        return
    if users is None:
        return
    if before["moved"] and is_retired_for(snapshot) != retired_comment(schema):
        yield _not_retired(connection, snapshot, schema)
        return
    present = {table.sql for table in snapshot.tables}
    back = {before["users"]} - {before["target"]}
    for taken in sorted({*before["going"], *back} & present):
        other = next(table for table in snapshot.tables if table.sql == taken)
        if other.kind != "v" or not _is_ours(taken, statements):
            message = f"{taken} exists again; the table of that name could not come back."
            kind = {"v": "VIEW", "m": "MATERIALIZED VIEW", "f": "FOREIGN TABLE"}.get(other.kind, "TABLE")
            apart = with_suffix(other.name, "_own", [table.name for table in snapshot.tables])
            remedy = f"ALTER {kind} {taken} RENAME TO {quoted(apart)};"
            yield Finding("name-taken", "refuse", taken, message, remedy)
    ours = {("view", table.sql) for table in snapshot.tables if _is_ours(table.sql, statements)}
    yield from _came_since(snapshot, users, before, ours)
    yield from misfits.examine(connection, snapshot, users, before, statements)
    yield from _missing_values(connection, users, before, snapshot)
    yield from orphans.examine(connection, snapshot, users, before, options)


def _not_retired(connection: Connection, snapshot: Snapshot, schema: str) -> Finding:
    comment = literal(retired_comment(schema))
    renamed = connection.exec_driver_sql(
        f"SELECT nspname::text FROM pg_namespace WHERE obj_description(oid, 'pg_namespace') = {comment}"
    ).scalar_one_or_none()
    if RETIRED_SCHEMA in snapshot.schemas:
        message = f"The schema {RETIRED_SCHEMA} is not the one that retire made for DATABASE_SCHEMA={schema}."
        remedy = f"SELECT obj_description('{RETIRED_SCHEMA}'::regnamespace);  -- says whose it is"
    elif renamed is not None:
        message = f"The schema {RETIRED_SCHEMA} is called {renamed} now."
        remedy = f"ALTER SCHEMA {quoted(renamed)} RENAME TO {RETIRED_SCHEMA};"
    else:
        message = f"The schema {RETIRED_SCHEMA} is gone, and with it all that undo would bring back."
        remedy = (
            f"CREATE SCHEMA {RETIRED_SCHEMA}; COMMENT ON SCHEMA {RETIRED_SCHEMA} IS {comment};\n"
            f'-- then, from a backup made since retire: pg_restore -d "$DATABASE_URL" -n {RETIRED_SCHEMA} THE_BACKUP\n'
            "-- where there is none: restore the backup of before the cutover"
        )
    return Finding("not-what-was-retired", "refuse", RETIRED_SCHEMA, message, remedy)


_IN_THE_WAY = (
    "view", "materialized view", "rule", "policy", "trigger", "function", "procedure", "publication relation",
)  # fmt: skip


def _resting_on(
    snapshot: Snapshot, columns: set[tuple[tuple[str, str], str]], known: Collection[tuple[str, ...]] = ()
) -> Iterator[Finding]:
    """Objects over columns that are dropped or change their type back, but for those that undo itself puts back."""
    snapshot = without_beside(snapshot)
    seen = set()
    for found in snapshot.dependents:
        of_column = found.column is not None and (found.table, found.column) in columns
        name = (found.kind, found.name or found.identity)
        # of another table's that has the name undo knows nothing; before owners were recorded it could not tell
        is_known = name in known or (*name, *(found.owner or ())) in known
        in_the_way = found.kind in _IN_THE_WAY or _is_generated(snapshot, found)
        if of_column and not is_known and in_the_way and (found.kind, found.identity) not in seen:
            seen.add((found.kind, found.identity))
            removals = release.removals(snapshot, [found])
            drops = "\n".join(f"{sql};" for removal in removals for sql in removal.drop)
            yield Finding(
                "undo-finds-objects",
                "refuse",
                found.identity,
                f"The {found.kind} {found.identity} reads {quoted(*found.table)}.{quoted(found.column or '')}, which "
                "undo drops or changes back.",
                drops or f"-- change it by hand, so that it does not read that: {found.kind} {found.identity}",
            )


def _over(snapshot: Snapshot, going: Collection[tuple[tuple[str, str], str]]) -> Iterator[Finding]:
    """Keys, constraints, indexes and statistics over columns that are dropped: they would go with them, unsaid."""

    def named(kind: str, name: str, table: Table, columns: Iterable[str], drop: str, made: Iterable[str]) -> Finding:
        over = next(column for column in columns if (table.key, column) in going)
        return Finding(
            "undo-finds-objects",
            "refuse",
            f"{table.sql} {quoted(name)}",
            f"The {kind} {quoted(name)} of {table.sql} is over {quoted(over)}, which undo drops.",
            "\n".join([f"{drop};", *anew(kind, made, "after undo, without what it drops")]),
        )

    for key in snapshot.foreign_keys:
        ends = [*((key.target, name) for name in key.target_columns), *((key.table, name) for name in key.columns)]
        at = next(((snapshot.table(*table), name) for table, name in ends if (table, name) in going), None)
        if at is not None and at[0] is not None and not key.inherited:
            drop = f"ALTER TABLE {quoted(*key.table)} DROP CONSTRAINT {quoted(key.name)}"
            yield named("foreign key", key.name, at[0], [at[1]], drop, restore.foreign_key(key))
    tables = {table for table, _ in going}
    for table in snapshot.tables:
        if table.key not in tables or table.kind == "v":
            continue
        gone = {name for key, name in going if key == table.key}
        above = {each.name for key in table.parents if (whole := snapshot.table(*key)) for each in whole.constraints}
        for found in table.constraints:
            is_own = found.kind in "cpux" and found.part_of is None and not (found.kind == "c" and found.name in above)
            if is_own and gone & set(found.columns):
                drop, made = f"ALTER TABLE {table.sql} DROP CONSTRAINT {quoted(found.name)}", restore.constraint
                yield named("constraint", found.name, table, found.columns, drop, made(table, found))
        for index in table.indexes:
            if index.part_of is None and gone & set(index.columns):
                drop = f"DROP INDEX {quoted(table.schema, index.name)}"
                yield named("index", index.name, table, index.columns, drop, restore.index(table, index))
        for each in table.statistics:
            if gone & set(each.columns):
                drop = f"DROP STATISTICS {quoted(each.schema, each.name)}"
                yield named("statistics object", each.name, table, each.columns, drop, restore.statistics(each))


def _is_generated(snapshot: Snapshot, found: Dependent) -> bool:
    """Whether it is the expression of a generated column."""
    table = snapshot.table(*found.owner) if found.owner and found.kind == "default value" else None
    column = table.column(found.name or "") if table else None
    return column is not None and bool(column.generated)


def _came_since(
    snapshot: Snapshot, users: Table, before: Mapping[str, Any], ours: Collection[tuple[str, str]]
) -> Iterator[Finding]:
    """What the app made since, in the place of what comes back or over what changes back, but for `ours`."""
    retyped = {((schema, table), column) for schema, table, column in before.get("retyped", ())}
    wholes = [(table, column) for key, column in retyped if (table := snapshot.table(*key)) is not None]
    retyped |= {(below.key, column) for table, column in wholes for below in children(snapshot, table)}
    for key in snapshot.foreign_keys:
        ends = {(key.table, column) for column in key.columns} | {(key.target, c) for c in key.target_columns}
        if ends & retyped and not key.inherited and not _was_there(key, before):
            yield _key_since(key, before, retyped)
    carried = {tuple(each) for each in before.get("carried", ())} | {*ours}
    yield from _resting_on(snapshot, retyped, carried)
    for name in before["going_columns"]:
        if users.column(name) is not None:
            message = f"{users.sql} has a column {quoted(name)} again; the one that comes back has that name."
            apart = with_suffix(name, "_own", [column.name for column in users.columns])
            remedy = f"ALTER TABLE {users.sql} RENAME COLUMN {quoted(name)} TO {quoted(apart)};"
            yield Finding("name-taken", "refuse", f"{users.sql}.{quoted(name)}", message, remedy)
    taken = {
        (table.schema, name): table
        for table in snapshot.tables
        for name in (*(c.name for c in table.constraints if c.kind in "pux"), *(i.name for i in table.indexes))
    }
    for schema, name in before.get("index_names", ()):
        if (other := taken.get((schema, name))) is not None:
            message = f"{other.sql} has an index {quoted(name)}; one of that name comes back."
            apart = with_suffix(name, "_own", [each for _, each in taken])
            remedy = f"ALTER INDEX {quoted(schema, name)} RENAME TO {quoted(apart)};"
            yield Finding("name-taken", "refuse", f"{other.sql} {quoted(name)}", message, remedy)
    yield from _made_anew(snapshot, users, before)


def _was_there(key: ForeignKey, before: Mapping[str, Any]) -> bool:
    """Whether undo knows a foreign key; that of a partition which was detached since is its own only since then."""
    names = {before["users"]: before["target"]}
    return any(
        names.get(each["table"], each["table"]) == quoted(*key.table) and each["name"] == key.name
        for each in before["foreign_keys"]
        if not each["inherited"]
    )


def _key_since(key: ForeignKey, before: Mapping[str, Any], retyped: set[tuple[tuple[str, str], str]]) -> Finding:
    table, type_ = quoted(*key.table), before["id_type"]
    own = {new: old for old, new in before["renames"].items()}
    definition = key.definition
    if quoted(*key.target) == before["target"]:
        now = ", ".join(quoted(column) for column in key.target_columns)
        then = ", ".join(quoted(own.get(column, column)) for column in key.target_columns)
        definition = definition.replace(
            f"REFERENCES {before['target']}({now})", f"REFERENCES {before['users']}({then})"
        )
    follow = [
        f"-- ALTER TABLE {table} ALTER COLUMN {quoted(column)} TYPE {type_} USING {quoted(column)}::{type_};"
        for column, target in zip(key.columns, key.target_columns, strict=True)
        if (key.target, target) in retyped and (key.table, column) not in retyped
    ]
    return Finding(
        "undo-finds-objects",
        "refuse",
        table,
        f"The foreign key {key.name} on {table} came since, or its table was detached since; it is over ids whose type "
        "changes back.",
        "\n".join(
            (
                f"ALTER TABLE {table} DROP CONSTRAINT {quoted(key.name)};",
                "-- after the undo, to have it again:",
                *follow,
                f"-- ALTER TABLE {table} ADD CONSTRAINT {quoted(key.name)} {definition};",
            )
        ),
    )


def _made_anew(snapshot: Snapshot, users: Table, before: Mapping[str, Any]) -> Iterator[Finding]:
    """What was released, comes back with undo, and is there again: made anew by hand, as the findings advise."""
    for kind, name, schema, table in before.get("released", ()):
        if kind in ("view", "materialized view"):
            there = [found for found in snapshot.tables if found.sql == name]
            drops = [f"DROP {kind.upper()} {found.sql};" for found in there]
        else:
            site = users.key if (schema, table) == (None, None) else (schema, table)
            found_again = [
                found
                for found in snapshot.dependents
                if found.kind == kind and (found.name or found.identity) == name and found.owner in (site, None)
            ]
            removals = release.removals(snapshot, found_again[:1])
            drops = [f"{sql};" for removal in removals for sql in removal.drop]
        if drops:
            yield Finding(
                "undo-finds-objects",
                "refuse",
                name,
                f"The {kind} {name} was released and is there again; undo brings back the one there was.",
                "\n".join(drops),
            )


def _is_ours(name: str, statements: Sequence[str]) -> bool:
    """Whether undoing drops it anyway: the view that kept the old names alive."""
    return f"DROP VIEW {name}" in statements


def _missing_values(
    connection: Connection, users: Table, before: Mapping[str, Any], snapshot: Snapshot
) -> Iterator[Finding]:
    """Users who came since, where a column that comes back must have a value and has no default."""
    kept = snapshot.table(RETIRED_SCHEMA, KEPT_COLUMNS)
    required = [quoted(name) for name in before["required_columns"]]
    if kept is None or not required:
        return
    own = kept.constraints[0].columns[0]
    new = f"FROM {users.sql} u WHERE NOT EXISTS (SELECT FROM {kept.sql} k WHERE k.{quoted(own)}::text = u.id)"
    if count := _count(connection, f"SELECT count(*) {new}"):
        names = ", ".join(required)
        values = ", ".join(
            stand_in(column, distinct=True) for name in before["required_columns"] if (column := kept.column(name))
        )
        yield Finding(
            "undo-needs-values",
            "refuse",
            users.sql,
            f"{count:,} users came since, and {names}, which comes back, must have a value and has no default.",
            f"INSERT INTO {kept.sql} ({quoted(own)}, {names}) "
            f"SELECT u.id::{kept.columns[0].type}, {values} {new};\n-- with values that your app can live with",
        )


def _adopt_losses(
    connection: Connection,
    snapshot: Snapshot,
    before: Mapping[str, Any],
    statements: Sequence[str],
    options: Options,
) -> Iterator[Finding]:
    where = before["users"] or before["target"]
    if all(table.sql != where for table in snapshot.tables) or "undo-loses-values" in options.accept:
        return
    dropped = "\n".join(statements)
    losses = []
    if f"DROP TABLE {where}" in dropped and (rows := _count(connection, f"SELECT count(*) FROM {where}")):
        losses.append(f"{rows:,} users, whose table was made by adopt")
    for name in ADDED_COLUMNS:
        if f"DROP COLUMN IF EXISTS {name}" in dropped and name != "identity_updated_at":
            there = any(table.sql == where and table.column(name) for table in snapshot.tables)
            rows = _count(connection, f"SELECT count(*) FROM {where} WHERE {name} IS NOT NULL") if there else 0
            if rows:
                losses.append(f"{rows:,} values of users.{name}")
    for table in snapshot.tables:
        ours = table.name in (EVENTS, STANDING) and f"DROP TABLE {table.sql}" in dropped
        if ours and (rows := _count(connection, f"SELECT count(*) FROM {table.sql}")):
            losses.append(f"{rows:,} rows of {table.name}")
    if losses:
        message = f"Undoing adopt would lose {' and '.join(losses)}."
        yield Finding("undo-loses-values", "refuse", where, message, "--accept undo-loses-values")


def _count(connection: Connection, sql: str) -> int:
    return int(connection.exec_driver_sql(sql).scalar_one())
