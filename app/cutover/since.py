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
from app.cutover.findings import Finding
from app.cutover.layout import RETIRED_SCHEMA, is_beside
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
    yield from _resting_on_dropped(snapshot, statements)


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


def _resting_on_dropped(snapshot: Snapshot, statements: Sequence[str]) -> Iterator[Finding]:
    """Objects and foreign keys that rest on a table or view which undo drops."""
    drop = re.compile(r"DROP (?:TABLE|VIEW) (?:IF EXISTS )?(.+)")
    names = {match[1] for statement in statements if (match := drop.fullmatch(statement))}
    dropped = {table.key: table for table in snapshot.tables if table.sql in names}
    printed: set[str] = set()
    seen: set[tuple[str, str]] = set()
    for found in snapshot.dependents:
        table = dropped.get(found.table)
        if table is None or found.owner in dropped or (found.kind, found.identity) in seen:
            continue
        if is_beside(table) and _is_of_column(snapshot, found, table):
            continue  # named with the columns
        seen.add((found.kind, found.identity))
        drops = [sql for removal in release.removals(snapshot, [found]) for sql in removal.drop if sql not in printed]
        printed.update(drops)
        yield Finding(
            "undo-finds-objects",
            "refuse",
            found.identity,
            f"The {found.kind} {found.identity} rests on {table.sql}, which undo drops.",
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


def _is_of_column(snapshot: Snapshot, found: Dependent, table: Table) -> bool:
    """Whether an object reads a column of a view by its name."""
    same = (each for each in snapshot.dependents if (each.kind, each.identity) == (found.kind, found.identity))
    return any(each.table == table.key and each.column is not None for each in same)
