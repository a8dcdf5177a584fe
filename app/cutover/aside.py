"""What steps aside while columns change type, and comes back as it was: objects, and constraints and indexes by name.

The promise: what comes back is made from the text it had before, not from what PostgreSQL turned that into on the way,
so that after an undo it is the same again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from app.cutover import release, restore
from app.cutover.catalog import Dependent, Snapshot, Table, quoted
from app.cutover.changes import Changes, children
from app.cutover.findings import Options
from app.cutover.layout import is_beside
from app.cutover.release import Removal


@dataclass(frozen=True, slots=True)
class Part:
    """A constraint or an index over columns that get another type."""

    kind: str
    table: Table
    name: str
    drop: str
    restore: tuple[str, ...]
    over: frozenset[tuple[tuple[str, str], str]]
    """Tables and columns."""
    plain: bool = False


def released(snapshot: Snapshot, options: Options) -> tuple[Removal, ...]:
    """Return how what --release names goes, and comes back with undo; but for what is on the view of adopt."""
    gone = {removal.identity for removal in released_on_view(snapshot, options)}
    named = [found for name in sorted(options.release) for found in release.named(snapshot, name)]
    return tuple(each for each in release.removals(snapshot, named) if each.identity not in gone)


def released_on_view(snapshot: Snapshot, options: Options) -> tuple[Removal, ...]:
    """Return how what --release names, and what depends on the view of adopt, goes: before the view does."""
    named = [found for name in sorted(options.release) for found in release.named(snapshot, name)]
    tables = {table.key for table in snapshot.tables if table.kind in ("r", "p", "v", "m", "f")}
    views = {table.key for table in snapshot.tables if is_beside(table)}
    # where the view has been taken out of the snapshot, what depends on it depends on nothing that is there
    return release.removals(snapshot, [each for each in named if each.table in views or _hangs(snapshot, each, tables)])


def _hangs(snapshot: Snapshot, found: Dependent, tables: set[tuple[str, str]]) -> bool:
    functions = {(function.schema, function.identity) for function in snapshot.functions}
    return found.table not in tables and found.table not in functions


def objects(snapshot: Snapshot, changes: Changes, options: Options) -> tuple[Removal, ...]:
    """Return the objects that step aside, in the order in which they come back."""
    gone = {(removal.kind, removal.identity) for removal in released(snapshot, options)}
    removals = release.removals(snapshot, changes.carried)
    return tuple(removal for removal in reversed(removals) if (removal.kind, removal.identity) not in gone)


def parts(changes: Changes) -> Iterator[Part]:
    """Return the checks, exclusions and free indexes that step aside, in the order in which they come back.

    Those of partitioned tables are left to PostgreSQL, which knows the names of their parts.
    """
    written = {(each.table.key, each.column.name) for each in changes.retypes if each.rewrites}
    # an index over columns alone is made anew by PostgreSQL, and a foreign key may rest on it
    yield from (part for part in _of_tables(changes) if not part.plain and part.over & written)


def all_parts(snapshot: Snapshot, changes: Changes) -> Iterator[Part]:
    """Return every check, exclusion and free index over a column that gets another type, whoever makes it anew."""
    yield from _of_tables(changes)
    for table in dict.fromkeys(retype.table for retype in changes.retypes):
        written = {each.column.name for each in changes.retypes if each.table.key == table.key}
        family = (table, *children(snapshot, table))
        for each in family[_steps_aside(table) :]:
            yield from _left_to_postgresql(each, written, {one.key: one for one in family})


def _left_to_postgresql(
    table: Table, written: Collection[str], family: Mapping[tuple[str, str], Table]
) -> Iterator[Part]:
    """Return what a table has of its own, and not from the table above."""
    above = [family[key] for key in table.parents if key in family]
    inherited = {one.name for each in above for one in each.constraints if " NO INHERIT" not in one.definition}
    for part in _over(table, written, ()):
        if part.kind != "constraint" or part.name not in inherited:
            yield part


def _steps_aside(table: Table) -> bool:
    return table.kind == "r" and not table.parents


def _of_tables(changes: Changes) -> Iterator[Part]:
    going = {column.name for column in changes.going}
    for table in dict.fromkeys(retype.table for retype in changes.retypes):
        written = {each.column.name for each in changes.retypes if each.table.key == table.key}
        if _steps_aside(table):
            yield from _over(table, written, going if table.key == changes.users.key else ())


def _over(table: Table, written: Collection[str], lost: Collection[str]) -> Iterator[Part]:
    """Return what is over some columns of a table and not over others."""
    for constraint in table.constraints:
        columns = set(constraint.columns)
        if (
            constraint.kind in "cx"
            and constraint.part_of is None
            and columns & set(written)
            and not columns & set(lost)
        ):
            drop = f"ALTER TABLE {table.sql} DROP CONSTRAINT {quoted(constraint.name)}"
            made = tuple(restore.constraint(table, constraint))
            over = frozenset((table.key, name) for name in constraint.columns)
            yield Part("constraint", table, constraint.name, drop, made, over)
    for index in table.indexes:
        columns = set(index.columns)
        if index.part_of is None and columns & set(written) and not columns & set(lost):
            drop = f"DROP INDEX {quoted(table.schema, index.name)}"
            # that of the whole makes those of its parts
            whole = replace(
                index, definition=index.definition.replace(f" ON ONLY {table.sql} ", f" ON {table.sql} ", 1)
            )
            over = frozenset((table.key, name) for name in index.columns)
            yield Part("index", table, index.name, drop, tuple(restore.index(table, whole)), over, index.plain)
