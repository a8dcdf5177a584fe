"""The real step: one transaction, in which what grows with the rows is done while others go on.

    nobody waits           the structure is settled, values are copied, facts are counted
    writers wait           what changed since is copied again, what may be null no longer is filled
    readers wait too       the catalogue changes: tables move, columns go, names and types become the target's

The promise: readers wait for the catalogue alone, unless ids must be written anew, which the plan says; each step
carries the SQL that undoes it, and together, the last first, they give back what was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from app.cutover import aside, beside, columns, journal, orphans, release, restore, retype
from app.cutover.catalog import ForeignKey, Snapshot, literal, quoted
from app.cutover.changes import DEAD_ROWS, RATE_LIMIT_ROWS, Changes, Move
from app.cutover.findings import Options, detached
from app.cutover.hush import hushed
from app.cutover.layout import RETIRED_SCHEMA, Layout, without_beside
from app.cutover.names import LONGEST_NAME, with_suffix
from app.cutover.signatures import USERS
from app.cutover.steps import Record, Step, settling, shutting_out, undo_of


def steps(
    snapshot: Snapshot, layout: Layout, changes: Changes | None, options: Options, operator: str
) -> tuple[Step, ...]:
    """Return the steps of 0002_retire."""
    objects = without_beside(snapshot)
    facts = journal.facts(snapshot, layout, changes, options)
    facts["released"] = _released(snapshot, changes, options)
    facts["kept_sequence"] = columns.kept_sequence(changes) if changes is not None else None
    counted = journal.counted(snapshot, layout)
    if changes is None or not changes.any:
        return (journal.recording(layout, Record("retire", operator, options, snapshot.fingerprint), facts, counted),)
    keys = _detached(snapshot, layout, options)
    locked = _locked(snapshot, changes, keys)
    copied = list(columns.copy(snapshot, changes))
    after = [
        *columns.fill(changes),
        *(_detach(snapshot, key) for key in keys),
        *_release(aside.released_on_view(snapshot, options)),
        *_remove_view(snapshot, changes),
        *_release(aside.released(objects, options)),
        *(step for move in changes.moves for step in _move(snapshot, move, layout)),
        *columns.ids_from_elsewhere(snapshot, changes),
        *columns.shrink(snapshot, changes),
        *retype.retype(objects, changes, options),
        *retype.complete(changes),
        *retype.require(changes),
        *retype.rename(objects, changes),
        *_compatible(snapshot, changes, options),
        *_clear_rate_limits(snapshot, changes),
    ]
    # the fills run while only writers wait, and are undone with the rest
    filled = [step for step in after if step.lock == "SHARE"]
    changed = [step for step in after if step.lock != "SHARE"]
    compatible = [changes.users.sql] if options.compat_view and changes.moves_users else []
    there = [*compatible, quoted(layout.schema, USERS), *(quoted(RETIRED_SCHEMA, move.name) for move in changes.moves)]
    undo = (*shutting_out(there, one_by_one=True), *undo_of((*copied, *filled, *changed)))
    record = Record("retire", operator, options, snapshot.fingerprint, undo)
    writers_wait = Step(
        "writers wait from here",
        shutting_out((*_view(changes), changes.users.sql), "SHARE"),
        "SHARE",
        (changes.users.sql,),
    )
    catching_up = [*columns.catch_up(changes), *filled]
    return (
        settling(locked),
        *copied,
        journal.recording(layout, record, facts, counted, {fill.name: fill.value for fill in changes.fills}),
        *((writers_wait, *catching_up) if catching_up else ()),
        Step(
            "readers wait too, from here to the end of the transaction",
            shutting_out((*_views(objects, changes, options), *locked), writers_wait=bool(catching_up)),
            "ACCESS EXCLUSIVE",
            locked,
        ),
        *changed,
    )


def _released(snapshot: Snapshot, changes: Changes | None, options: Options) -> list[list[str | None]]:
    """Return, for the journal, what --release takes: kind, name, and the table it sits on, users being none."""
    removed = {(each.kind, each.identity) for each in aside.released(without_beside(snapshot), options)}
    removed |= {(each.kind, each.identity) for each in aside.released_on_view(snapshot, options)}
    found: dict[tuple[str, str], list[str | None]] = {}
    for each in snapshot.dependents:
        if (each.kind, each.identity) in removed:
            of_users = changes is not None and each.owner == changes.users.key
            site: tuple[str | None, str | None] = (None, None) if of_users or each.owner is None else each.owner
            name = each.identity if each.kind in ("view", "materialized view") else each.name or each.identity
            found[each.kind, each.identity] = [each.kind, name, *site]
    return list(found.values())


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
        # what refers to what never was there, or is gone since, is named before (orphans.py)
        undo=(*_catch_up(snapshot, key), *restore.foreign_key(key)),
        undone="the constraint is added again",
    )


def _catch_up(snapshot: Snapshot, key: ForeignKey) -> Iterator[str]:
    """Do what the foreign key would have done, had it stood; no trigger of the app's is to see it."""
    if statements := tuple(orphans.catching_up(snapshot, key)):
        quiet, loud = hushed(quoted(*key.table), alone=snapshot.rows_of(key).startswith("ONLY "))
        yield from (quiet, *statements, loud)


def _remove_view(snapshot: Snapshot, changes: Changes) -> Iterator[Step]:
    if not changes.beside:
        return
    view = beside.standing(snapshot, changes)
    given = beside.given_since(changes, view) if view is not None else []
    made = beside.creation(snapshot, changes) if view is None else beside.again(snapshot, changes, view)
    yield Step(
        "the view that stood beside the old app's table goes",
        (*(give for give, _ in given), *beside.removal(changes)),
        undo=(*(take for _, take in given), *made),
        undone="it is made again as it was",
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
    passing = _passing(snapshot, move)
    here, kept = quoted(table.schema, passing), quoted(RETIRED_SCHEMA, passing)
    there = [f"ALTER TABLE {here} SET SCHEMA {RETIRED_SCHEMA}"]
    back = [f"ALTER TABLE {kept} SET SCHEMA {quoted(table.schema)}"]
    if passing != table.name:
        there.insert(0, f"ALTER TABLE {table.sql} RENAME TO {quoted(passing)}")
        back.append(f"ALTER TABLE {here} RENAME TO {quoted(table.name)}")
    if passing != move.name:
        there.append(f"ALTER TABLE {kept} RENAME TO {quoted(move.name)}")
        back.insert(0, f"ALTER TABLE {quoted(RETIRED_SCHEMA, move.name)} RENAME TO {quoted(passing)}")
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


def _passing(snapshot: Snapshot, move: Move) -> str:
    """Return the name under which a table goes from schema to schema.

    Its array type has the same with `_` before it. Of two names that differ at their ends alone, once cut to fit, the
    second table's gets another; that is found by RENAME, and in the way of SET SCHEMA.
    """
    if max(len(name.encode()) for name in (move.name, move.table.name)) < LONGEST_NAME:
        return move.name
    return with_suffix("passing", "", [table.name for table in snapshot.tables])


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
    names = ", ".join(quoted(column.name) for column in table.columns if not column.generated)
    rows = table.sql if table.kind == "p" else f"ONLY {table.sql}"  # what inherits from it is the app's
    overriding = " OVERRIDING SYSTEM VALUE" if any(column.identity for column in table.columns) else ""
    quiet, loud = hushed(table.sql, alone=table.kind != "p")
    yield Step(
        f"{table.sql} loses its rows of sessions",
        (
            f"CREATE TABLE {kept} AS SELECT {names} FROM {table.sql} WITH NO DATA",
            *journal.kept_from_others(kept, snapshot, changes.owner_but(snapshot.role)),
            quiet,
            f"WITH gone AS (DELETE FROM {rows} WHERE {quoted(key.name)} LIKE {literal(DEAD_ROWS)} "
            f"RETURNING {names}) INSERT INTO {kept} SELECT * FROM gone",
            loud,
        ),
        undo=(
            quiet,
            f"INSERT INTO {table.sql} ({names}){overriding} SELECT * FROM {kept} ON CONFLICT DO NOTHING",
            loud,
            f"DROP TABLE {kept}",
        ),
        undone="they come back",
        rows=max(table.rows, 0),
    )
