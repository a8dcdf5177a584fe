"""What came since a revision and would stop a statement of its undo: rows out of sight, tables of others, what rests on
what is dropped.

The promise: it reads the catalogue alone, no row, so that it can be asked before anything that reads rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from app.cutover import doubts, hush, journal, release, strangers
from app.cutover.catalog import OWN_TABLES, Dependent, Snapshot, Table, quoted
from app.cutover.changes import children
from app.cutover.findings import Finding
from app.cutover.layout import RETIRED_SCHEMA, is_beside
from app.cutover.rules.by_hand import by_hand
from app.cutover.rules.language import lacking
from app.cutover.rules.strangers import not_empty


def examine(
    connection: Connection, snapshot: Snapshot, schema: str, before: Mapping[str, Any], statements: Sequence[str]
) -> Iterator[Finding]:
    """Yield what would stop a statement of an undo.

    Args:
        connection: the database.
        snapshot: its catalogue.
        schema: where the app's tables are.
        before: what was recorded of the revision.
        statements: what is to be run.
    """
    yield from _not_owned(snapshot, statements)
    yield from out_of_sight(snapshot, before, statements)
    blocks = any(statement.startswith("DO ") for statement in statements)
    if blocks and (remedy := hush.language_lacks(connection)) is not None:
        yield lacking(snapshot.role, snapshot.database, remedy)
    if f"DROP SCHEMA {RETIRED_SCHEMA}" in statements:
        others = (each for each in strangers.members(connection) if not _is_ours(each, statements))
        yield from not_empty(others, schema)
    yield from _resting_on_dropped(snapshot, before, statements)
    yield from _of_row_types(snapshot, before, statements)
    yield from _inheriting(snapshot, before, statements)


def _names(statement: str, table: str) -> bool:
    """Whether a statement names a table, given as SQL."""
    return re.search(rf'(?<![\w".$]){re.escape(table)}(?![\w"$])', statement) is not None


def _not_owned(snapshot: Snapshot, statements: Sequence[str]) -> Iterator[Finding]:
    """Tables that were given to another role since, and schemas in which the role may no longer create."""
    altering = "\n".join(each for each in statements if re.match("(ALTER|DROP|LOCK) ", each))
    lacking = [table for table in snapshot.tables if not table.owned and _names(altering, table.sql)]
    lacking = [table for table in lacking if table.name not in (*OWN_TABLES, *journal.KEPT_TABLES)]
    if lacking:
        owners = sorted({table.owner for table in lacking})
        yield Finding(
            "missing-privileges",
            "refuse",
            snapshot.role,
            f"The role {snapshot.role} cannot alter {', '.join(table.sql for table in lacking)}: "
            f"{'it belongs' if len(lacking) == 1 else 'they belong'} to {', '.join(owners)}.",
            "\n".join(f"GRANT {quoted(owner)} TO {quoted(snapshot.role)};" for owner in owners),
        )
    places = {quoted(name): name for name in snapshot.schemas if name not in snapshot.creatable_schemas}
    for place in sorted(set(re.findall(r" SET SCHEMA (.+)$", altering, re.MULTILINE)) & places.keys()):
        yield Finding(
            "missing-privileges",
            "refuse",
            places[place],
            f"The role {snapshot.role} may not create in the schema {place}, to which tables come back.",
            f"GRANT USAGE, CREATE ON SCHEMA {place} TO {quoted(snapshot.role)};",
        )


def out_of_sight(snapshot: Snapshot, before: Mapping[str, Any], statements: Sequence[str]) -> Iterator[Finding]:
    """Yield the tables whose rows are read or written, and of which the role does not see all."""
    writing = "\n".join(each for each in statements if re.match("(UPDATE|DELETE|INSERT|SELECT|WITH) ", each))
    earlier = {now: was for was, now in before.get("moved", {}).items()}
    read = {before["users"], before["target"], *earlier}
    for table in snapshot.tables:
        used = table.sql in read or _names(writing, table.sql)
        if used and table.kind in "rp" and table.owned and not snapshot.sees(table):
            doubt = doubts.hidden(table, snapshot.role)
            yield Finding(doubt.code, "refuse", doubt.subject, doubt.message, doubt.remedy)


def _is_ours(member: strangers.Member, statements: Iterable[str]) -> bool:
    """Whether undo itself moves or drops it."""
    ours = re.compile(rf'(ALTER|DROP) \w+ {re.escape(member.identity)}(?![\w"$.])')
    return any(ours.match(statement) for statement in statements)


_DROP = re.compile(r"DROP (?:TABLE|(?:MATERIALIZED )?VIEW|FUNCTION|PROCEDURE) (?:IF EXISTS )?(.+)")


def _resting_on_dropped(snapshot: Snapshot, before: Mapping[str, Any], statements: Sequence[str]) -> Iterator[Finding]:
    """Objects and foreign keys that rest on a table, view or function that undo drops, and that it does not drop first.

    What it drops to make it again comes before what that rests on; what it is called there is its name of before.
    """
    when = {statement: number for number, statement in enumerate(statements)}
    names = {match[1]: number for statement, number in when.items() if (match := _DROP.fullmatch(statement))}
    dropped = {table.key: table.sql for table in snapshot.tables if table.sql in names}
    dropped |= {(each.schema, each.identity): each.identity for each in snapshot.functions if each.identity in names}
    views = {table.key for table in snapshot.tables if is_beside(table)}
    printed: set[str] = set()
    seen: set[tuple[str, str]] = set()
    callers = (found for function in snapshot.functions for found in function.dependents)
    for found in (*snapshot.dependents, *callers):
        below = dropped.get(found.table)
        if below is None or (found.kind, found.identity) in seen:
            continue
        if found.owner in dropped and names[dropped[found.owner]] <= names[below]:
            continue
        if found.table in views and _is_of_column(snapshot, found):
            continue  # named with the columns
        removals = release.removals(snapshot, [found])
        own = [
            sql for each in removals if (each.kind, each.identity) == (found.kind, found.identity) for sql in each.drop
        ]
        if own and all(when.get(_as_before(sql, before), len(statements)) < names[below] for sql in own):
            continue
        seen.add((found.kind, found.identity))
        drops = [sql for removal in removals for sql in removal.drop if sql not in printed]
        printed.update(drops)
        yield Finding(
            "undo-finds-objects",
            "refuse",
            found.identity,
            f"The {found.kind} {found.identity} rests on {below}, which undo drops.",
            "\n".join(f"{sql};" for sql in drops)
            or f"-- change or drop it by hand, so that it does not read that: {found.kind} {found.identity}",
        )
    for key in snapshot.keys_to(*dropped):
        if key.table not in dropped and not key.inherited:
            table_of = quoted(*key.table)
            yield Finding(
                "undo-finds-objects",
                "refuse",
                table_of,
                f"The foreign key {key.name} on {table_of} refers to {quoted(*key.target)}, which undo drops.",
                f"ALTER TABLE {table_of} DROP CONSTRAINT {quoted(key.name)};",
            )


_TABLE = r'(?:"(?:[^"]|"")*"|[^\s."]+)'
_REWRITES = re.compile(
    rf"ALTER TABLE (?P<table>{_TABLE}\.{_TABLE}) .*?"
    rf"(?:ALTER COLUMN {_TABLE} TYPE |ADD COLUMN {_TABLE} .*(?:DEFAULT|GENERATED) )",
    re.DOTALL,
)
"""Statements that PostgreSQL runs on no table of whose rows another one has a column."""


def _rewritten(snapshot: Snapshot, before: Mapping[str, Any], statements: Iterable[str]) -> list[Table]:
    """Return the tables of which columns change their type back, or come back with values, and what is below them."""
    names = {match["table"] for statement in statements if (match := _REWRITES.match(statement))}
    names = {before["target"] if name == before["users"] else name for name in names}
    tables = [table for table in snapshot.tables if table.sql in names]
    return list(dict.fromkeys(each for table in tables for each in (table, *children(snapshot, table))))


def _of_row_types(snapshot: Snapshot, before: Mapping[str, Any], statements: Sequence[str]) -> Iterator[Finding]:
    """Columns that hold whole rows of a table which undo changes, or arrays or domains of them."""
    tables = {table.key: table for table in _rewritten(snapshot, before, statements)}
    for found in snapshot.dependents:
        if found.kind == "table column" and found.column is None and found.table in tables:
            yield Finding(
                "undo-finds-objects",
                "refuse",
                found.identity,
                f"The {found.kind} {found.identity} holds rows of {tables[found.table].sql}, whose columns undo "
                "changes or brings back.",
                by_hand(snapshot, found),
            )


def _inheriting(snapshot: Snapshot, before: Mapping[str, Any], statements: Sequence[str]) -> Iterator[Finding]:
    """Tables that were attached or made to inherit since: a column that is inherited changes with the one above."""
    tables = _rewritten(snapshot, before, statements)
    changed = {((schema, table), column) for schema, table, column in before.get("retyped", ())}
    changed = {(key, column) for key, column in changed if any(table.key == key for table in tables)}
    told = "\n".join(statements)
    for table in snapshot.tables:
        if table.sql == before["target"]:
            names = before.get("renames", {}).values()
            changed |= {(table.key, name) for name in names if f" RENAME COLUMN {quoted(name)} TO " in told}
    for table in snapshot.tables:
        for above in filter(None, (snapshot.table(*key) for key in table.parents)):
            own = (name for key, name in sorted(changed) if key == table.key and (above.key, name) not in changed)
            column = next((name for name in own if above.column(name) is not None), None)
            if column is not None:
                is_part = table.partition_bound is not None
                yield Finding(
                    "undo-finds-objects",
                    "refuse",
                    table.sql,
                    f"{table.sql} became a {'partition' if is_part else 'child'} of {above.sql} since; undo changes "
                    f"{quoted(column)} back, and of what is inherited PostgreSQL changes nothing.",
                    f"ALTER TABLE {above.sql} DETACH PARTITION {table.sql};"
                    if is_part
                    else f"ALTER TABLE {table.sql} NO INHERIT {above.sql};",
                )


def _as_before(statement: str, before: Mapping[str, Any]) -> str:
    """Return a statement that takes something out, with the name that the table of users had."""
    users = before["users"] or before["target"]
    return re.sub(rf" (ON|TABLE) {re.escape(before['target'])}(?= |$)", lambda found: f" {found[1]} {users}", statement)


def _is_of_column(snapshot: Snapshot, found: Dependent) -> bool:
    """Whether an object reads a column of a view by its name."""
    same = (each for each in snapshot.dependents if (each.kind, each.identity) == (found.kind, found.identity))
    return any(each.table == found.table and each.column is not None for each in same)
