"""The plan: from a Snapshot to Steps.

The promise: pure. The same Snapshot and the same options give the same SQL, nothing is touched to find out, and every
name in it is qualified. No statement here says CASCADE.

    adopt    adds the columns and tables the server needs            undone by dropping them
    retire   one transaction, see retire.py                          undone from what it recorded
    drop     drops what retire moved, object by object               cannot be undone
"""

from __future__ import annotations

from collections.abc import Iterator

from app.cutover import beside, changes, columns, journal, received, retire
from app.cutover.catalog import Snapshot, Table, quoted
from app.cutover.changes import RATE_LIMIT_ROWS, Changes
from app.cutover.findings import Action, Options
from app.cutover.layout import KEPT_COLUMNS, RETIRED_SCHEMA, Layout
from app.cutover.signatures import TARGET_COLUMNS, USERS
from app.cutover.steps import SHORT_LOCK_TIMEOUT_MS, Record, Step, settling, shutting_out, undo_of

_FINAL = "cannot be undone: restore it from the backup"


def steps_for(action: Action, snapshot: Snapshot, layout: Layout, options: Options, operator: str) -> tuple[Step, ...]:
    """Return the steps of one revision.

    Args:
        action: which revision.
        snapshot: the catalogue as it is, or as it was before the revisions planned ahead of this one.
        layout: who plays which role in it.
        options: what the person decided.
        operator: who runs it, for the journal.
    """
    found = changes.of(snapshot, layout)
    if action == "adopt":
        return _adopt(snapshot, layout, found, options, operator)
    if action == "retire":
        return retire.steps(snapshot, layout, found, options, operator)
    return _drop(snapshot, layout, found, options, operator)


def _adopt(
    snapshot: Snapshot, layout: Layout, found: Changes | None, options: Options, operator: str
) -> tuple[Step, ...]:
    steps = [
        journal.creation(layout.schema, snapshot, None if found is None else found.owner_but(snapshot.role)),
        received.creation(layout.schema, snapshot, None if found is None else found.users),
    ]
    first: tuple[str, ...] = ()
    if found is None:
        steps.append(_create_users(layout.schema))
    else:
        if added := list(_add_columns(snapshot, found)):
            readers = "readers wait from here to the end of the transaction"
            steps += (Step(readers, shutting_out((found.users.sql,)), "ACCESS EXCLUSIVE", (found.users.sql,)), *added)
            first = shutting_out((found.users.sql,))
        if found.beside:
            steps.append(_create_view(snapshot, found))
            # the view may be gone by then, so that it cannot be named here; it is dropped before the table is touched
            first = (f"SET LOCAL lock_timeout = {SHORT_LOCK_TIMEOUT_MS}",)
    record = Record("adopt", operator, options, snapshot.fingerprint, (*first, *undo_of(steps)))
    # the server may be new, and so may be the table: there is nothing to count before it exists
    return (*steps, journal.recording(layout, record, journal.facts(snapshot, layout, found, options)))


def _create_users(schema: str) -> Step:
    users = quoted(schema, USERS)
    columns = ",\n".join(f"    {name} {type_} {rest}".rstrip() for name, (type_, rest) in TARGET_COLUMNS.items())
    return Step(
        f"{users} is made",
        (f"CREATE TABLE {users} (\n{columns}\n)",),
        undo=(f"DROP TABLE {users}",),
        undone="it is dropped, unless it holds rows",
    )


def _add_columns(snapshot: Snapshot, found: Changes) -> Iterator[Step]:
    users = found.users
    missing = [name for name in TARGET_COLUMNS if name not in found.fields]
    if missing:
        added = ", ".join(f"ADD COLUMN {name} {' '.join(TARGET_COLUMNS[name]).rstrip()}" for name in missing)
        # of a child that was released and inherits again, the columns are its own too
        tables = (users, *(changes.children(snapshot, users)))
        dropped = {
            table.sql: [f"DROP COLUMN IF EXISTS {name}" for name in reversed(missing) if table.column(name) is None]
            for table in tables
        }
        yield Step(
            f"{users.name} gains {', '.join(missing)}",
            (f"ALTER TABLE {users.sql} {added}",),
            "ACCESS EXCLUSIVE",
            (users.sql,),
            undo=tuple(f"ALTER TABLE {table} {', '.join(gone)}" for table, gone in dropped.items() if gone),
            undone="the columns are dropped",
        )
    for name, column, default in () if found.renamed else found.defaults:
        yield Step(
            f"users.{name} gains its default",
            (f"ALTER TABLE {users.sql} ALTER COLUMN {quoted(column.name)} SET DEFAULT {default}",),
            "ACCESS EXCLUSIVE",
            (users.sql,),
            undo=(f"ALTER TABLE {users.sql} ALTER COLUMN {quoted(column.name)} DROP DEFAULT",),
            undone="the default is dropped",
        )


def _create_view(snapshot: Snapshot, found: Changes) -> Step:
    view = quoted(beside.schema_of(found), USERS)
    return Step(
        f"the view {view} shows {found.users.sql} under the new names, to the server beside the old app",
        tuple(beside.creation(snapshot, found)),
        undo=tuple(beside.removal(found)),
        undone="it is dropped",
    )


def _drop(
    snapshot: Snapshot, layout: Layout, found: Changes | None, options: Options, operator: str
) -> tuple[Step, ...]:
    record = Record("drop", operator, options, snapshot.fingerprint)
    recording = journal.recording(layout, record, journal.facts(snapshot, layout, found, options))
    going = {table.key: (table, table.name) for table in changes.with_partitions(snapshot, layout.going)}
    if found is not None:
        going = {move.table.key: (move.table, move.name) for move in found.moves}
    names = [quoted(RETIRED_SCHEMA, name) for _, name in going.values()]
    steps = [*((settling(names),) if names else ()), recording]
    among = [k for k in snapshot.keys_from(*going) if k.target in going and k.target != k.table and not k.inherited]
    if among:
        steps.append(
            Step(
                "foreign keys among the retired tables are dropped",
                tuple(
                    f"ALTER TABLE {quoted(RETIRED_SCHEMA, going[key.table][1])} DROP CONSTRAINT {quoted(key.name)}"
                    for key in among
                ),
                "ACCESS EXCLUSIVE",
                tuple(sorted({quoted(RETIRED_SCHEMA, going[n][1]) for key in among for n in (key.table, key.target)})),
                undone=_FINAL,
            )
        )
    # a partition before what it is a part of
    for table, name in sorted(going.values(), key=lambda item: -changes.depth(snapshot, item[0].key)):
        steps.append(_drop_table(name, table))
    kept = [name for name, there in _kept(snapshot, found) if there]
    steps += [_drop_table(name) for name in kept]
    sequence = layout.kept_sequence if found is None else columns.kept_sequence(found)
    if sequence is not None:
        steps.append(Step(f"{sequence} is dropped", (f"DROP SEQUENCE {sequence}",), undone=_FINAL))
    if going or kept or RETIRED_SCHEMA in snapshot.schemas:
        steps.append(Step(f"the schema {RETIRED_SCHEMA} is dropped", (f"DROP SCHEMA {RETIRED_SCHEMA}",), undone=_FINAL))
    return tuple(steps)


def _drop_table(name: str, table: Table | None = None) -> Step:
    moved = quoted(RETIRED_SCHEMA, name)
    return Step(
        f"{moved} is dropped",
        (f"DROP TABLE {moved}",),
        "ACCESS EXCLUSIVE",
        (moved,),
        undone=_FINAL,
        rows=max(table.rows, 0) if table else None,
        bytes=table.size if table else None,
    )


def _kept(snapshot: Snapshot, found: Changes | None) -> Iterator[tuple[str, bool]]:
    """Return the tables of our own in RETIRED_SCHEMA, and whether they are, or will be, there."""
    values = found is not None and bool(found.going or found.fills)
    limits = found is not None and found.rate_limits is not None
    yield KEPT_COLUMNS, values or snapshot.table(RETIRED_SCHEMA, KEPT_COLUMNS) is not None
    yield RATE_LIMIT_ROWS, limits or snapshot.table(RETIRED_SCHEMA, RATE_LIMIT_ROWS) is not None
