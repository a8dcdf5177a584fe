"""The real step: one transaction, in which what grows with the rows is done while others go on.

    nobody waits           the structure is settled, values are copied, facts are counted
    writers wait           what changed since is copied again, what may be null no longer is filled
    readers wait too       the catalogue changes: tables move, columns go, names and types become the target's

The promise: readers wait for the catalogue alone, unless ids must be written anew, which the plan says; each step
carries the SQL that undoes it, and together, the last first, they give back what was.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, count

from app.cutover import aside, beside, estimate, journal, release, restore
from app.cutover.catalog import Column, ForeignKey, Snapshot, Table, literal, quoted
from app.cutover.changes import DEAD_ROWS, RATE_LIMIT_ROWS, Changes, Move, Retype
from app.cutover.findings import Options, detached
from app.cutover.layout import KEPT_COLUMNS, RETIRED_SCHEMA, Layout, retired_comment, without_beside
from app.cutover.objects import Sequence as DatabaseSequence
from app.cutover.signatures import ADDED_COLUMNS, TARGET_COLUMNS, USERS
from app.cutover.steps import Record, Step, settling, shutting_out, undo_of

_SEEN = "shadow.seen"
"""Run-time parameter with the snapshot that was taken before values were copied."""


def steps(
    snapshot: Snapshot, layout: Layout, changes: Changes | None, options: Options, operator: str
) -> tuple[Step, ...]:
    """Return the steps of 0002_retire."""
    objects = without_beside(snapshot)
    facts = journal.facts(snapshot, layout, changes, options)
    counted = journal.counted(snapshot, layout)
    if changes is None or not changes.any:
        return (journal.recording(layout, Record("retire", operator, options, snapshot.fingerprint), facts, counted),)
    keys = _detached(snapshot, layout, options)
    locked = _locked(snapshot, changes, keys)
    copied = list(_copy(snapshot, changes))
    after = [
        *_fill(changes),
        *(_detach(snapshot, key) for key in keys),
        *_release(aside.released_on_view(snapshot, options)),
        *_remove_view(snapshot, changes),
        *_release(aside.released(objects, options)),
        *(step for move in changes.moves for step in _move(snapshot, move, layout)),
        *_ids_from_elsewhere(snapshot, changes),
        *_shrink(snapshot, changes, {removal.identity for removal in aside.released(objects, options)}),
        *_retype(objects, changes, options),
        *_complete(changes),
        *_require(changes),
        *_rename(objects, changes),
        *_compatible(snapshot, changes, options),
        *_clear_rate_limits(snapshot, changes),
    ]
    # the fills run while only writers wait, and are undone with the rest
    filled = [step for step in after if step.lock == "SHARE"]
    changed = [step for step in after if step.lock != "SHARE"]
    compatible = [changes.users.sql] if options.compat_view and changes.moves_users else []
    there = [*compatible, quoted(layout.schema, USERS), *(quoted(RETIRED_SCHEMA, move.name) for move in changes.moves)]
    undo = (*shutting_out(there), *undo_of((*copied, *filled, *changed)))
    record = Record("retire", operator, options, snapshot.fingerprint, undo)
    writers_wait = Step(
        "writers wait from here",
        shutting_out((*_view(changes), changes.users.sql), "SHARE"),
        "SHARE",
        (changes.users.sql,),
    )
    catching_up = [*_catch_up_copy(changes), *filled]
    return (
        settling(locked),
        *copied,
        journal.recording(layout, record, facts, counted, {fill.name: fill.value for fill in changes.fills}),
        *((writers_wait, *catching_up) if catching_up else ()),
        Step(
            "readers wait too, from here to the end of the transaction",
            shutting_out((*_views(objects, changes, options), *locked)),
            "ACCESS EXCLUSIVE",
            locked,
        ),
        *changed,
    )


def _view(changes: Changes) -> tuple[str, ...]:
    """Return the view that stands beside the old app's table, if one does."""
    return (quoted(beside.schema_of(changes), USERS),) if changes.beside else ()


def _views(snapshot: Snapshot, changes: Changes, options: Options) -> Iterator[str]:
    """Return the app's views that are dropped, for good or to be made again."""
    removals = (*aside.released(snapshot, options), *reversed(aside.objects(snapshot, changes, options)))
    yield from (removal.identity for removal in removals if removal.kind == "view")


def _locked(snapshot: Snapshot, changes: Changes, keys: Iterable[ForeignKey]) -> tuple[str, ...]:
    """Return all tables that are altered, users first: locked at once, in one order."""
    # who reads the view locks it, and then the table
    found = dict.fromkeys((*_view(changes), *(table.sql for table in changes.touched)))
    for key in (*keys, *changes.keys):
        for name in (key.target, key.table):
            if (table := snapshot.table(*name)) is not None:
                found.setdefault(table.sql)
    return tuple(found)


# ---------------------------------------------------------------------------------------------------- values are kept


def _copy(snapshot: Snapshot, changes: Changes) -> Iterator[Step]:
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


def _catch_up_copy(changes: Changes) -> Iterator[Step]:
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


def _fill(changes: Changes) -> Iterator[Step]:
    users, kept, key = changes.users.sql, quoted(RETIRED_SCHEMA, KEPT_COLUMNS), _id(changes)
    if not changes.fills:
        return
    quiet, loud = _hushed(changes.users, set())
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
        (*quiet, f"UPDATE {users} SET {values} WHERE {missing}", *loud),
        "SHARE",
        (users,),
        undo=(*quiet, *emptied, *loud),
        undone="it is null again",
        rows=max(changes.users.rows, 0),
    )


# ------------------------------------------------------------------------------------------ what is in the way goes


def _detached(snapshot: Snapshot, layout: Layout, options: Options) -> list[ForeignKey]:
    going = [table.key for table in layout.going]
    return [
        key
        for key in snapshot.keys_to(*going)
        if key.table not in going and not key.inherited and detached(key, options)
    ]


def _detach(snapshot: Snapshot, key: ForeignKey) -> Step:
    return Step(
        f"{key.name} on {quoted(*key.table)} is detached",
        (f"ALTER TABLE {quoted(*key.table)} DROP CONSTRAINT {quoted(key.name)}",),
        "ACCESS EXCLUSIVE",
        (quoted(*key.table), quoted(*key.target)),
        # rows of what never was there are named before (undo.py); these followed a user who was deleted since
        undo=(*_catch_up(snapshot, key), *restore.foreign_key(key)),
        undone="the constraint is added again",
    )


def _catch_up(snapshot: Snapshot, key: ForeignKey) -> Iterator[str]:
    """What the foreign key would have done, had it stood, when a row it refers to was deleted meanwhile."""
    given = " AND ".join(f"r.{quoted(column)} IS NOT NULL" for column in key.columns)
    pairs = zip(key.columns, key.target_columns, strict=True)
    same = " AND ".join(f"t.{quoted(target)} = r.{quoted(column)}" for column, target in pairs)
    lost = f"{given} AND NOT EXISTS (SELECT FROM {quoted(*key.target)} t WHERE {same})"
    if not key.validated:
        return
    if key.on_delete == "c":
        yield f"DELETE FROM {snapshot.rows_of(key)} r WHERE {lost}"
    elif key.on_delete == "n":
        named = re.search(r"ON DELETE SET NULL \(([^)]*)\)", key.definition)
        columns = [name.strip() for name in named[1].split(",")] if named else [quoted(each) for each in key.columns]
        emptied = ", ".join(f"{column} = NULL" for column in columns)
        yield f"UPDATE {snapshot.rows_of(key)} r SET {emptied} WHERE {lost}"


def _remove_view(snapshot: Snapshot, changes: Changes) -> Iterator[Step]:
    if changes.beside:
        yield Step(
            "the view that stood beside the old app's table goes",
            tuple(beside.removal(changes)),
            undo=tuple(beside.creation(snapshot, changes)),
            undone="it is made again",
        )


def _release(removals: Iterable[release.Removal]) -> Iterator[Step]:
    for removal in removals:
        yield Step(
            f"the {removal.kind} {removal.identity} is released",
            removal.drop,
            "ACCESS EXCLUSIVE",
            undo=removal.restore,
            undone="it is made again as it was",
        )


# -------------------------------------------------------------------------------------------------------- tables move


def _move(snapshot: Snapshot, move: Move, layout: Layout) -> Iterator[Step]:
    table, going = move.table, [other.key for other in layout.going]
    keys = [key for key in snapshot.keys_from(table.key) if key.target not in going and not key.inherited]
    renamed = quoted(table.schema, move.name)
    there = [f"ALTER TABLE {renamed} SET SCHEMA {RETIRED_SCHEMA}"]
    back = [f"ALTER TABLE {quoted(RETIRED_SCHEMA, move.name)} SET SCHEMA {quoted(table.schema)}"]
    if move.name != table.name:
        there.insert(0, f"ALTER TABLE {table.sql} RENAME TO {quoted(move.name)}")
        back.append(f"ALTER TABLE {renamed} RENAME TO {quoted(table.name)}")
    for key in keys:
        back += _catch_up(snapshot, key)
        back += restore.foreign_key(key)
    dropped = ", ".join(f"DROP CONSTRAINT {quoted(key.name)}" for key in keys)
    yield Step(
        f"{table.sql} moves to {RETIRED_SCHEMA}",
        (*((f"ALTER TABLE {table.sql} {dropped}",) if keys else ()), *there),
        "ACCESS EXCLUSIVE",
        (table.sql, *sorted({quoted(*key.target) for key in keys})),
        undo=tuple(back),
        undone="it moves back, and its foreign keys are added again",
    )


# --------------------------------------------------------------------------------------------------- columns of users


def is_kept(sequence: DatabaseSequence) -> bool:
    """Whether a sequence can be kept by itself: that of an identity column goes with the identity."""
    return not sequence.kind.startswith("identity")


def _ids_from_elsewhere(snapshot: Snapshot, changes: Changes) -> Iterator[Step]:
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


def _restore_identity(snapshot: Snapshot, changes: Changes, sequence: DatabaseSequence) -> Iterator[str]:
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


def _shrink(snapshot: Snapshot, changes: Changes, released: set[str]) -> Iterator[Step]:
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
        undo=(*_restore_columns(changes, released), *after),
        undone="columns, values, defaults, constraints, indexes, comments and grants come back",
    )


def _restore_columns(changes: Changes, released: set[str]) -> Iterator[str]:
    users, columns = changes.users, changes.going
    table, kept, key = users.sql, quoted(RETIRED_SCHEMA, KEPT_COLUMNS), _id(changes)
    yield f"ALTER TABLE {table} {', '.join(f'ADD COLUMN {_column(column)}' for column in columns)}"
    stored = [quoted(column.name) for column in columns if not column.generated]
    if stored:
        pairs = ", ".join(f"{name} = k.{name}" for name in stored)
        quiet, loud = _hushed(users, {column.name for column in columns}, released)
        yield from quiet
        yield f"UPDATE {table} u SET {pairs} FROM {kept} k WHERE k.{key} = u.{key}"
        yield from loud
    for column in columns:
        name = quoted(column.name)
        named = any(found.kind == "n" and column.name in found.columns for found in users.constraints)
        if column.not_null and not named:
            yield f"ALTER TABLE {table} ALTER COLUMN {name} SET NOT NULL"
        yield from restore.column(users, column)


def _hushed(users: Table, going: set[str], absent: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Return what silences, and what restores, all that an UPDATE of users would set off or run into.

    Nobody changes these rows: triggers and rules of the app's must not see it, and a row that violates a NOT VALID
    check, which holds for changes only, must not be in the way; nor a publication that could not tell rows apart.
    """
    table = users.sql
    modes = {"O": "ENABLE", "A": "ENABLE ALWAYS"}
    quiet, loud = [], []
    if users.replica_identity == "n":
        quiet.append(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
        loud.append(f"ALTER TABLE {table} REPLICA IDENTITY NOTHING")
    for kind, what in (("TRIGGER", users.triggers), ("RULE", users.rules)):
        for item in what:
            if item.enabled in modes and f"{quoted(item.name)} on {table}" not in absent:
                quiet.append(f"ALTER TABLE {table} DISABLE {kind} {quoted(item.name)}")
                loud.append(f"ALTER TABLE {table} {modes[item.enabled]} {kind} {quoted(item.name)}")
    for check in users.constraints:
        if check.kind in "cn" and check.definition.endswith(" NOT VALID") and not going & set(check.columns):
            quiet.append(f"ALTER TABLE {table} DROP CONSTRAINT {quoted(check.name)}")
            loud.append(f"ALTER TABLE {table} ADD CONSTRAINT {quoted(check.name)} {check.definition}")
            if check.comment is not None:
                loud.append(f"COMMENT ON CONSTRAINT {quoted(check.name)} ON {table} IS {literal(check.comment)}")
    return quiet, loud


def _column(column: Column) -> str:
    parts = [quoted(column.name), column.type]
    if column.collation is not None:
        parts.append(f"COLLATE {column.collation}")
    if column.generated:
        parts.append(f"GENERATED ALWAYS AS ({column.default}) {'VIRTUAL' if column.generated == 'v' else 'STORED'}")
    elif column.default is not None:
        parts.append(f"DEFAULT {column.default}")
    return " ".join(parts)


# -------------------------------------------------------------------------------------------------------- types, names


def _retype(snapshot: Snapshot, changes: Changes, options: Options) -> Iterator[Step]:
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
            undo=tuple(added),
            undone="they are added again",
        )
    carried = aside.objects(snapshot, changes, options)
    parts = list(aside.parts(changes))
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
            f"{len(parts)} constraints and indexes over these columns step aside",
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
            f"{len(parts)} constraints and indexes over these columns are back",
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
        undo=(f"ALTER TABLE {table.sql} {', '.join(back)}", *tidy),
        undone="the types change back",
        rows=max(table.rows, 0) if rewrites else None,
        bytes=table.size if rewrites else None,
        seconds=estimate.rewriting(table) if rewrites else None,
    )


def _complete(changes: Changes) -> Iterator[Step]:
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


def _require(changes: Changes) -> Iterator[Step]:
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
            undo=(f"ALTER TABLE {users} {', '.join(back)}",),
            undone="it does not any more",
            rows=max(changes.users.rows, 0) if changes.required else None,
            seconds=estimate.scanning(changes.users) if changes.required else None,
        )


def _rename(snapshot: Snapshot, changes: Changes) -> Iterator[Step]:
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


def _compatible(snapshot: Snapshot, changes: Changes, options: Options) -> Iterator[Step]:
    if options.compat_view and changes.moves_users:
        yield Step(
            f"the view {changes.users.sql} keeps the old names alive",
            tuple(beside.compatible(snapshot, changes)),
            undo=(f"DROP VIEW {changes.users.sql}",),
            undone="it is dropped",
        )


def _clear_rate_limits(snapshot: Snapshot, changes: Changes) -> Iterator[Step]:
    table, key = changes.rate_limits, changes.rate_limit_key
    if table is None or key is None:
        return
    kept = quoted(RETIRED_SCHEMA, RATE_LIMIT_ROWS)
    columns = ", ".join(quoted(column.name) for column in table.columns if not column.generated)
    overriding = " OVERRIDING SYSTEM VALUE" if any(column.identity for column in table.columns) else ""
    quiet, loud = _hushed(table, set())
    yield Step(
        f"{table.sql} loses its rows of sessions",
        (
            f"CREATE TABLE {kept} AS SELECT {columns} FROM {table.sql} WITH NO DATA",
            *journal.kept_from_others(kept, snapshot, changes.owner_but(snapshot.role)),
            *quiet,
            f"WITH gone AS (DELETE FROM {table.sql} WHERE {quoted(key.name)} LIKE {literal(DEAD_ROWS)} "
            f"RETURNING {columns}) INSERT INTO {kept} SELECT * FROM gone",
            *loud,
        ),
        undo=(
            *quiet,
            f"INSERT INTO {table.sql} ({columns}){overriding} SELECT * FROM {kept} ON CONFLICT DO NOTHING",
            *loud,
            f"DROP TABLE {kept}",
        ),
        undone="they come back",
        rows=max(table.rows, 0),
    )
