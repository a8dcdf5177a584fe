"""The columns of users that go, and what is missing in those that stay: kept, filled, and brought back.

The promise: values are copied while nobody waits, and what changed meanwhile is copied again under a lock that shuts
out writers alone; no trigger, rule or policy of the app's sees it.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.cutover import journal, release, restore
from app.cutover.catalog import Column, Snapshot, literal, quoted
from app.cutover.changes import Changes
from app.cutover.hush import hushed
from app.cutover.layout import KEPT_COLUMNS, RETIRED_SCHEMA, retired_comment
from app.cutover.objects import Sequence
from app.cutover.steps import Step, altering

_SEEN = "shadow.seen"
"""Run-time parameter with the snapshot that was taken before values were copied."""


def copy(snapshot: Snapshot, changes: Changes) -> Iterator[Step]:
    reader = changes.owner_but(snapshot.role)
    yield Step(
        f"the schema {RETIRED_SCHEMA} is made",
        (
            f"CREATE SCHEMA {RETIRED_SCHEMA}",
            f"COMMENT ON SCHEMA {RETIRED_SCHEMA} IS {literal(retired_comment(changes.schema))}",
            *((f"GRANT USAGE ON SCHEMA {RETIRED_SCHEMA} TO {quoted(reader)}",) if reader is not None else ()),
        ),
        undo=(f"DROP SCHEMA {RETIRED_SCHEMA}",),
        undone="it is dropped, empty",
    )
    if not _copied(changes):
        return
    kept = quoted(RETIRED_SCHEMA, KEPT_COLUMNS)
    selected = ", ".join(f"{value} AS {name}" for name, value in _copied(changes).items())
    yield Step(
        f"the values of {len(_copied(changes)) - 1} columns are kept in {kept}",
        (
            f"SELECT set_config({literal(_SEEN)}, pg_current_snapshot()::text, true)",
            f"CREATE TABLE {kept} AS SELECT {selected} FROM {changes.users.sql}",
            f"ALTER TABLE {kept} ADD PRIMARY KEY ({_id(changes)})",
            *journal.kept_from_others(kept, snapshot, reader),
        ),
        undo=(f"DROP TABLE {kept}",),
        undone="it is dropped after the values are back",
        rows=max(changes.users.rows, 0),
        bytes=changes.users.size,
    )


def _id(changes: Changes) -> str:
    return quoted(changes.fields["id"].name)


def _copied(changes: Changes) -> dict[str, str]:
    """Return the columns of KEPT_COLUMNS and what is in them, as SQL; none where nothing needs keeping."""
    columns = {quoted(column.name): quoted(column.name) for column in changes.going}
    columns |= {quoted(fill.mark): f"{quoted(fill.column.name)} IS NULL" for fill in changes.fills}
    return {_id(changes): _id(changes), **columns} if columns else {}


def catch_up(changes: Changes) -> Iterator[Step]:
    columns = _copied(changes)
    if not columns:
        return
    kept, users, key = quoted(RETIRED_SCHEMA, KEPT_COLUMNS), changes.users.sql, _id(changes)
    newer = ", ".join(f"{name} = excluded.{name}" for name in columns if name != key)
    seen = f"(SELECT age(pg_snapshot_xmin(current_setting({literal(_SEEN)})::pg_snapshot)::xid))"
    yield Step(
        "what changed since it was copied is copied again",
        (
            # a row's xmin is what wrote it; one that is younger than our snapshot may have been written after it
            f"INSERT INTO {kept} ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM {users} "
            # the values of who was deleted meanwhile stay, and come back to nobody
            f"WHERE age(xmin) <= {seen} ON CONFLICT ({key}) DO UPDATE SET {newer}",
        ),
        "SHARE",
        (users,),
        rows=max(changes.users.rows, 0),
    )


def fill(changes: Changes) -> Iterator[Step]:
    users, kept, key = changes.users.sql, quoted(RETIRED_SCHEMA, KEPT_COLUMNS), _id(changes)
    if not changes.fills:
        return
    quiet, loud = hushed(users)
    values = ", ".join(
        f"{quoted(fill.column.name)} = coalesce({quoted(fill.column.name)}, {fill.value})" for fill in changes.fills
    )
    missing = " OR ".join(f"{quoted(fill.column.name)} IS NULL" for fill in changes.fills)
    emptied = tuple(
        f"UPDATE {users} u SET {quoted(fill.column.name)} = NULL FROM {kept} k WHERE k.{key} = u.{key} "
        f"AND k.{quoted(fill.mark)}"
        for fill in changes.fills
    )
    yield Step(
        f"where {', '.join(fill.name for fill in changes.fills)} is null, it gets a value",
        (quiet, f"UPDATE {users} SET {values} WHERE {missing}", loud),
        "SHARE",
        (users,),
        undo=(quiet, *emptied, loud),
        undone="it is null again",
        rows=max(changes.users.rows, 0),
    )


def is_kept(sequence: Sequence) -> bool:
    """Whether a sequence can be kept by itself: that of an identity column goes with the identity."""
    return not sequence.kind.startswith("identity")


def kept_sequence(changes: Changes) -> str | None:
    """Return what the sequence that makes ids is called once it is kept, as SQL; None where there is none to keep."""
    sequence = changes.sequence
    return quoted(RETIRED_SCHEMA, sequence.name) if sequence is not None and is_kept(sequence) else None


def ids_from_elsewhere(snapshot: Snapshot, changes: Changes) -> Iterator[Step]:
    users, column, sequence = changes.users, changes.fields["id"], changes.sequence
    change = f"ALTER TABLE {users.sql} ALTER COLUMN {quoted(column.name)}"
    if sequence is not None and not is_kept(sequence):
        sql, undo = [f"{change} DROP IDENTITY"], list(_restore_identity(snapshot, changes, sequence))
    elif column.default is not None:
        sql, undo = [f"{change} DROP DEFAULT"], [f"{change} SET DEFAULT {column.default}"]
        if sequence is not None:
            own, kept = quoted(sequence.schema, sequence.name), quoted(RETIRED_SCHEMA, sequence.name)
            sql += [f"ALTER SEQUENCE {own} OWNED BY NONE", f"ALTER SEQUENCE {own} SET SCHEMA {RETIRED_SCHEMA}"]
            undo[:0] = [
                f"ALTER SEQUENCE {kept} SET SCHEMA {quoted(sequence.schema)}",
                f"ALTER SEQUENCE {own} OWNED BY {users.sql}.{quoted(column.name)}",
                # ids that came from elsewhere must not come once more
                f"SELECT setval({literal(own)}, max({quoted(column.name)})) FROM {users.sql} "
                f"HAVING max({quoted(column.name)}) > (SELECT last_value FROM {own})",
            ]
    else:
        return
    yield Step(
        "users.id loses its default: the provider makes ids",
        tuple(sql),
        "ACCESS EXCLUSIVE",
        (users.sql,),
        undo=tuple(undo),
        undone="the default is set again",
    )


def _restore_identity(snapshot: Snapshot, changes: Changes, sequence: Sequence) -> Iterator[str]:
    users, own = changes.users, quoted(changes.fields["id"].name)
    name = quoted(sequence.schema, sequence.name)
    kind = "ALWAYS" if sequence.kind == "identity always" else "BY DEFAULT"
    cycle = " CYCLE" if sequence.cycle else ""
    yield (
        f"ALTER TABLE {users.sql} ALTER COLUMN {own} ADD GENERATED {kind} AS IDENTITY (SEQUENCE NAME {name} "
        f"INCREMENT BY {sequence.increment} MINVALUE {sequence.min} MAXVALUE {sequence.max} "
        f"START WITH {sequence.start} "
        f"CACHE {sequence.cache}{cycle})"
    )
    if sequence.last_value is not None:
        called, last = "true" if sequence.is_called else "false", sequence.last_value
        yield (
            f"SELECT setval({literal(name)}, greatest({last}, max({own})), {called} OR coalesce(max({own}) >= {last}, "
            f"false)) FROM {users.sql}"
        )
    if sequence.comment is not None:
        yield f"COMMENT ON SEQUENCE {name} IS {literal(sequence.comment)}"
    yield from release.grants("SEQUENCE", name, sequence.owner, sequence.privileges, snapshot.default_grantees)


def shrink(snapshot: Snapshot, changes: Changes) -> Iterator[Step]:
    users, columns = changes.users, changes.going
    if not columns:
        return
    names = {column.name for column in columns}
    before: list[str] = []
    after: list[str] = []
    for key in snapshot.keys_from(users.key):
        if names & set(key.columns):
            before.append(f"ALTER TABLE {users.sql} DROP CONSTRAINT {quoted(key.name)}")
            after += restore.foreign_key(key)
    for constraint in sorted(users.constraints, key=lambda found: found.kind != "n"):
        # not-null first: an index that is the replica identity needs it
        if names & set(constraint.columns):
            before.append(f"ALTER TABLE {users.sql} DROP CONSTRAINT {quoted(constraint.name)}")
            after += restore.constraint(users, constraint)
    for index in users.indexes:
        if names & set(index.columns):
            before.append(f"DROP INDEX {quoted(users.schema, index.name)}")
            after += restore.index(users, index)
    gone = {item.name for item in users.constraints if names & set(item.columns)}
    gone |= {item.name for item in users.indexes if names & set(item.columns)}
    if users.replica_index in gone:
        # without this, updates of a published table would fail as soon as the index is gone
        before.insert(0, f"ALTER TABLE {users.sql} REPLICA IDENTITY DEFAULT")
    dropped = ", ".join(f"DROP COLUMN {quoted(column.name)}" for column in columns)
    yield Step(
        f"users loses {', '.join(column.name for column in columns)}",
        (*before, f"ALTER TABLE {users.sql} {dropped}"),
        "ACCESS EXCLUSIVE",
        (users.sql,),
        undo=(*_restore_columns(changes), *after),
        undone="columns, values, defaults, constraints, indexes, comments and grants come back",
    )


def _restore_columns(changes: Changes) -> Iterator[str]:
    users, columns = changes.users, changes.going
    table, kept, key = users.sql, quoted(RETIRED_SCHEMA, KEPT_COLUMNS), _id(changes)
    yield altering(table, [f"ADD COLUMN {_column(column)}" for column in columns])
    stored = [(quoted(column.name), column.not_null) for column in columns if not column.generated]
    if stored:
        # a row that was put there by hand for a user who came since need not say what has a default
        pairs = ", ".join(
            f"{name} = coalesce(k.{name}, u.{name})" if required else f"{name} = k.{name}" for name, required in stored
        )
        quiet, loud = hushed(table)
        yield quiet
        yield f"UPDATE {table} u SET {pairs} FROM {kept} k WHERE k.{key} = u.{key}"
        yield loud
    for column in columns:
        name = quoted(column.name)
        named = any(found.kind == "n" and column.name in found.columns for found in users.constraints)
        if column.not_null and not named:
            yield f"ALTER TABLE {table} ALTER COLUMN {name} SET NOT NULL"
        yield from restore.column(users, column)


def _column(column: Column) -> str:
    parts = [quoted(column.name), column.type]
    if column.collation is not None:
        parts.append(f"COLLATE {column.collation}")
    if column.generated:
        parts.append(f"GENERATED ALWAYS AS ({column.default}) {'VIRTUAL' if column.generated == 'v' else 'STORED'}")
    elif column.default is not None:
        parts.append(f"DEFAULT {column.default}")
    return " ".join(parts)
