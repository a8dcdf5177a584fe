"""Names and types: those of users become the target's, and columns that refer to its ids change with them.

The promise: what rests on such a column steps aside and is back in the same transaction, made from its own text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, count

from app.cutover import aside, estimate, restore
from app.cutover.catalog import ForeignKey, Snapshot, Table, literal, quoted
from app.cutover.changes import Changes, Retype
from app.cutover.findings import Options
from app.cutover.hush import in_dollars
from app.cutover.signatures import ADDED_COLUMNS, TARGET_COLUMNS, USERS
from app.cutover.steps import Step, altering


def retype(snapshot: Snapshot, changes: Changes, options: Options) -> Iterator[Step]:
    if not changes.retypes:
        return
    keys, added = changes.keys, [statement for key in changes.keys for statement in restore.foreign_key(key)]
    # a partition's key goes with that of the whole, and must be there before it to keep its name
    dropped = [f"ALTER TABLE {quoted(*k.table)} DROP CONSTRAINT {quoted(k.name)}" for k in keys if not k.inherited]
    if keys:
        tables = tuple(sorted({quoted(*name) for key in keys for name in (key.table, key.target)}))
        yield Step(
            f"{len(dropped)} foreign keys step aside while their columns change type",
            tuple(dropped),
            "ACCESS EXCLUSIVE",
            tables,
            undo=tuple(_if_still_a_part(key, sql) for key in keys for sql in restore.foreign_key(key)),
            undone="they are added again",
        )
    carried = aside.objects(snapshot, changes, options)
    parts = list(aside.parts(changes))
    counted = f"constraints and indexes ({len(parts)})"
    for removal in reversed(carried):
        yield Step(
            f"the {removal.kind} {removal.identity} steps aside",
            removal.drop,
            "ACCESS EXCLUSIVE",
            undo=removal.restore,
            undone="it is made again",
        )
    if parts:
        yield Step(
            f"{counted} over these columns step aside",
            tuple(part.drop for part in parts),
            "ACCESS EXCLUSIVE",
            tuple(sorted({part.table.sql for part in parts})),
            undo=tuple(statement for part in parts for statement in part.restore),
            undone="they are made again",
        )
    for table in dict.fromkeys(each.table for each in changes.retypes):
        yield _retype_table(table, [each for each in changes.retypes if each.table.key == table.key])
    if parts:
        yield Step(
            f"{counted} over these columns: back",
            tuple(statement for part in parts for statement in part.restore),
            "ACCESS EXCLUSIVE",
            tuple(sorted({part.table.sql for part in parts})),
            undo=tuple(part.drop for part in parts),
            undone="they are dropped while types change back",
        )
    for removal in carried:
        yield Step(
            f"the {removal.kind} {removal.identity} is back",
            removal.restore,
            "ACCESS EXCLUSIVE",
            undo=removal.drop,
            undone="it is dropped while types change back",
        )
    if keys:
        yield Step(
            f"{len(dropped)} foreign keys are back",
            tuple(added),
            "ACCESS EXCLUSIVE",
            tables,
            undo=tuple(dropped),
            undone="they are dropped while types change back",
            rows=sum(max(t.rows, 0) for name in {key.table for key in keys} if (t := snapshot.table(*name))),
            seconds=estimate.validation(snapshot, keys),
        )


def _if_still_a_part(key: ForeignKey, sql: str) -> str:
    """Return what undo runs for the key of a partition, which may have been detached or dropped since."""
    if not key.inherited:
        return sql
    part = literal(quoted(*key.table))
    condition = f"SELECT FROM pg_class WHERE oid = to_regclass({part}) AND relispartition"
    return f"DO {in_dollars(f'BEGIN IF EXISTS ({condition}) THEN {sql}; END IF; END')}"


def _retype_table(table: Table, retypes: Sequence[Retype]) -> Step:
    there: list[str] = []
    back: list[str] = []
    tidy: list[str] = []
    rewrites = any(retype.rewrites for retype in retypes)
    for retype in retypes:
        column, name = retype.column, quoted(retype.column.name)
        collation = f" COLLATE {column.collation}" if column.collation else ""
        there.append(f"ALTER COLUMN {name} TYPE {retype.using}")
        using = f" USING {name}::{column.type}" if retype.rewrites else ""
        back.append(f"ALTER COLUMN {name} TYPE {column.type}{collation}{using}")
        tidy += restore.storage(table, column)
    names = ", ".join(f"{retype.column.name} becomes {retype.type}" for retype in retypes)
    return Step(
        f"{table.sql}: {names}",
        (f"ALTER TABLE {table.sql} {', '.join(there)}",),
        "ACCESS EXCLUSIVE",
        (table.sql,),
        undo=(altering(table.sql, back), *tidy),
        undone="the types change back",
        rows=max(table.rows, 0) if rewrites else None,
        bytes=table.size if rewrites else None,
        seconds=estimate.rewriting(table) if rewrites else None,
    )


def complete(changes: Changes) -> Iterator[Step]:
    """Add again what adopt added, should it be gone: tools of the old app drop what they do not know."""
    missing = [name for name in (*ADDED_COLUMNS, "image") if name not in changes.fields]
    if missing:
        users = changes.users.sql
        added = ", ".join(f"ADD COLUMN IF NOT EXISTS {name} {TARGET_COLUMNS[name][0]}" for name in missing)
        yield Step(
            f"users has {', '.join(missing)}, if something dropped what adopt added",
            (f"ALTER TABLE {users} {added}",),
            "ACCESS EXCLUSIVE",
            (users,),
        )


def require(changes: Changes) -> Iterator[Step]:
    users = changes.users.sql
    there, back = [], []
    for _, column in changes.required:
        there.append(f"ALTER COLUMN {quoted(column.name)} SET NOT NULL")
        back.append(f"ALTER COLUMN {quoted(column.name)} DROP NOT NULL")
    for _, column, default in changes.defaults if changes.renamed else ():
        there.append(f"ALTER COLUMN {quoted(column.name)} SET DEFAULT {default}")
        back.append(f"ALTER COLUMN {quoted(column.name)} DROP DEFAULT")
    if there:
        yield Step(
            "users requires and defaults what the target does",
            (f"ALTER TABLE {users} {', '.join(there)}",),
            "ACCESS EXCLUSIVE",
            (users,),
            undo=(altering(users, back),),
            undone="it requires and defaults what it did before",
            rows=max(changes.users.rows, 0) if changes.required else None,
            seconds=estimate.scanning(changes.users) if changes.required else None,
        )


def rename(snapshot: Snapshot, changes: Changes) -> Iterator[Step]:
    users = changes.users
    if not changes.renamed:
        return
    there, back = [], []
    for own, name in changes.renames:
        there.append(f"ALTER TABLE {users.sql} RENAME COLUMN {quoted(own)} TO {quoted(name)}")
        back.append(f"ALTER TABLE {users.sql} RENAME COLUMN {quoted(name)} TO {quoted(own)}")
    passing = _passing(snapshot, changes)
    on_the_way, there_too = quoted(users.schema, passing), quoted(changes.schema, passing)
    if passing != users.name:
        there.append(f"ALTER TABLE {users.sql} RENAME TO {quoted(passing)}")
        back.insert(0, f"ALTER TABLE {on_the_way} RENAME TO {quoted(users.name)}")
    if users.schema != changes.schema:
        there.append(f"ALTER TABLE {on_the_way} SET SCHEMA {quoted(changes.schema)}")
        back.insert(0, f"ALTER TABLE {there_too} SET SCHEMA {quoted(users.schema)}")
    if passing != USERS:
        there.append(f"ALTER TABLE {there_too} RENAME TO {USERS}")
        back.insert(0, f"ALTER TABLE {quoted(changes.schema, USERS)} RENAME TO {quoted(passing)}")
    yield Step(
        f"{users.sql} becomes {quoted(changes.schema, USERS)}, and {len(changes.renames)} columns get their new names",
        tuple(there),
        "ACCESS EXCLUSIVE",
        (users.sql,),
        undo=tuple(back),
        undone="names become what they were",
    )


def _passing(snapshot: Snapshot, changes: Changes) -> str:
    """Return the name under which users moves from schema to schema: one that is free in both."""
    users = changes.users
    if users.schema == changes.schema:
        return USERS
    places = (users.schema, changes.schema)
    taken = {table.name for table in snapshot.tables if table.schema in places and table.key != users.key}
    names = chain((USERS, users.name), (f"users_{number}" for number in count(2)))
    return next(name for name in names if name not in taken)
