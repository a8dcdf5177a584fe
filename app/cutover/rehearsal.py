"""A rehearsal: whether what reads a uuid or number id can be made again when the id is text, and whether event triggers
let the structure be changed at all.

PostgreSQL knows no operator between text and uuid, so a policy, view or check that compares the two cannot come back.
Which those are, only PostgreSQL can tell: they are made over empty tables of the same names and the new types, in a
schema that is gone again with the savepoint it was made in. What an event trigger forbids only its function can tell:
it is called by the like of what the cutover does, over tables of the same names.

The promise: nothing stays, no row is read, and nobody waits: the real tables are looked at, not locked against anybody.
Only what a function does outside of transactions is done: the sequence moves by which an event trigger counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.cutover import aside, filling, stops, surroundings
from app.cutover.catalog import JOURNAL, Column, Snapshot, Table, quoted
from app.cutover.changes import Changes, Retype, children
from app.cutover.findings import Action, Complaint, Options
from app.cutover.layout import KEPT_COLUMNS, RETIRED_SCHEMA, without_beside
from app.cutover.raised import mentions, raised_by
from app.cutover.release import Removal
from app.cutover.signatures import USERS

EVENT_TRIGGER = "event trigger"
"""The kind of a complaint about one."""
_SCHEMA = "shadow_rehearsal"
_PASSING = frozenset({"08", "40", "53", "55", "57"})
"""Classes of SQLSTATE that are no function's opinion: connections, conflicts, resources, locks, operators."""


def rehearse(
    connection: Connection,
    snapshot: Snapshot,
    changes: Changes | None,
    options: Options,
    actions: tuple[Action, ...] = ("retire",),
) -> tuple[Complaint, ...]:
    """Return what could not be made again over the new types, or what forbids all of it; nothing is the usual.

    Args:
        connection: the database.
        snapshot: its catalogue.
        changes: what retire changes; None where there is nothing that it does.
        options: what the person decided.
        actions: those that are about to be taken.
    """
    if not snapshot.may_create_schema:
        return ()
    if forbidden := _forbidden(connection, snapshot, changes, actions):
        return forbidden
    if changes is None or "retire" not in actions:
        return ()
    filled = tuple(filling.forbidden(connection, snapshot, changes))
    if not changes.retypes:
        return filled
    with connection.begin_nested() as savepoint:
        found = tuple(_complaints(connection, without_beside(snapshot), changes, options))
        savepoint.rollback()
    return filled + found


def _forbidden(
    connection: Connection, snapshot: Snapshot, changes: Changes | None, actions: tuple[Action, ...]
) -> tuple[Complaint, ...]:
    """Return the event triggers of which one raises an error, by what it says, when the like of an action is done."""
    triggers = surroundings.event_triggers(connection)
    if not triggers:
        return ()
    if "retire" in actions and changes is not None and changes.any:
        tried = _like_retire(snapshot, changes, makes_tables="adopt" in actions)
    elif "drop" in actions:
        tried = _like_drop(snapshot)
    elif "adopt" in actions and changes is not None:
        tried = _like_adopt(snapshot, changes)
    else:
        return ()
    words, context = None, ""
    with connection.begin_nested() as savepoint:
        for part in tried:
            try:
                with connection.begin_nested():
                    connection.exec_driver_sql(part.sql)
            except DBAPIError as error:
                state = (getattr(error.orig, "sqlstate", None) or "08")[:2]
                if state in _PASSING and raised_by(error) is None:
                    raise
                cause = error.orig.__cause__ if error.orig else None
                words, context = _said(error) if part.judged else None, getattr(cause, "context", None) or ""
                break
        savepoint.rollback()
    if words is None:
        return ()
    named = tuple(trigger for trigger in triggers if mentions(context, trigger.function))
    return tuple(Complaint(EVENT_TRIGGER, trigger.name, None, words) for trigger in named or triggers)


@dataclass(frozen=True, slots=True)
class _Tried:
    """A statement over tables of the rehearsal's own, which have the names of the real ones."""

    sql: str
    judged: bool = True
    """Whether the action does the like of it; it does not make the tables."""


def _stand_in(schema: str, name: str, columns: str = "id integer", *, judged: bool = True) -> Iterator[_Tried]:
    """Yield what makes a table of a name, which nobody is told of before it is altered."""
    passing = quoted(schema, _SCHEMA)
    yield _Tried(f"CREATE TABLE {passing} ({columns})", judged=False)
    yield _Tried(f"ALTER TABLE {passing} RENAME TO {quoted(name)}", judged=judged)


def _like_retire(snapshot: Snapshot, changes: Changes, *, makes_tables: bool) -> Iterator[_Tried]:
    """Yield one statement of each kind that retire has; and that adopt has, where that makes tables before it."""
    schema = RETIRED_SCHEMA if RETIRED_SCHEMA not in snapshot.schemas else _SCHEMA
    yield _Tried(f"CREATE SCHEMA {schema}")
    yield _Tried(f"COMMENT ON SCHEMA {schema} IS 'a rehearsal'")
    if makes_tables:
        yield _Tried(f"CREATE TABLE {quoted(schema, JOURNAL)} (id bigint PRIMARY KEY)")
    users, going = changes.users.name, [quoted(column.name) for column in changes.going]
    table = quoted(schema, users)
    yield from _stand_in(schema, users, ", ".join(["id integer PRIMARY KEY", *(f"{name} text" for name in going)]))
    if changes.going or changes.fills:
        yield _Tried(f"CREATE TABLE {quoted(schema, KEPT_COLUMNS)} AS SELECT * FROM {table}")
    yield _Tried(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS deleted_at timestamp with time zone")
    if going:
        yield _Tried(f"ALTER TABLE {table} {', '.join(f'DROP COLUMN {name}' for name in going)}")
    if any(retype.rewrites for retype in changes.retypes):
        yield _Tried(f"ALTER TABLE {table} ALTER COLUMN id TYPE text USING id::text")
    taken = {users, USERS, KEPT_COLUMNS, JOURNAL}
    for name in sorted({move.name for move in changes.moves} - taken):
        yield from _stand_in(schema, name)
    if users != USERS:
        yield _Tried(f"ALTER TABLE {table} RENAME TO {USERS}")


def _like_adopt(snapshot: Snapshot, changes: Changes) -> Iterator[_Tried]:
    """Yield one statement of each kind that adopt has."""
    yield _Tried(f"CREATE SCHEMA {_SCHEMA}", judged=False)
    if snapshot.table(changes.schema, JOURNAL) is None:
        yield _Tried(f"CREATE TABLE {quoted(_SCHEMA, JOURNAL)} (id bigint PRIMARY KEY)")
        yield _Tried(f"COMMENT ON TABLE {quoted(_SCHEMA, JOURNAL)} IS 'a rehearsal'")
    table = quoted(_SCHEMA, changes.users.name)
    yield from _stand_in(_SCHEMA, changes.users.name)
    yield _Tried(f"ALTER TABLE {table} ADD COLUMN deleted_at timestamp with time zone")
    if changes.beside and changes.users.name != USERS:
        yield _Tried(f"CREATE VIEW {_SCHEMA}.{USERS} AS SELECT id FROM {table}")


def _like_drop(snapshot: Snapshot) -> Iterator[_Tried]:
    """Yield one statement of each kind that drop has."""
    yield _Tried(f"CREATE SCHEMA {_SCHEMA}", judged=False)
    for table in snapshot.tables:
        if table.schema == RETIRED_SCHEMA:
            yield from _stand_in(_SCHEMA, table.name, judged=False)
            yield _Tried(f"DROP TABLE {quoted(_SCHEMA, table.name)}")
    yield _Tried(f"DROP SCHEMA {_SCHEMA}")


def _said(error: DBAPIError) -> str:
    return str(error.orig.__cause__ or error.orig).splitlines()[0] if error.orig else str(error)


def _complaints(connection: Connection, snapshot: Snapshot, changes: Changes, options: Options) -> Iterator[Complaint]:
    tables = list(dict.fromkeys(retype.table for retype in changes.retypes))
    objects = aside.objects(snapshot, changes, options)
    stage = _Stage(connection, snapshot)
    for schema in dict.fromkeys([*(table.schema for table in tables), *snapshot.schemas]):
        stage.open(schema)
    retyped = {table: [each for each in changes.retypes if each.table.key == table.key] for table in tables}
    for table in tables:  # a partition's or child's columns change with those above
        for below in children(snapshot, table):
            retyped[below] = [*retyped.get(below, []), *retyped[table]]
    sites = list(_sites(snapshot, objects))
    retyped.update({site: [] for site in sites if site.kind in "rp" and site not in retyped})
    for table, retypes in retyped.items():
        stage.put(table, retypes)
    for view in dict.fromkeys(site for site in sites if site.kind == "v"):
        stage.put_view(view)
    for part in aside.all_parts(snapshot, changes):
        if (words := stage.tried(part.restore[:1])) is not None:
            yield Complaint(part.kind, f"{quoted(part.name)} of {part.table.sql}", part.drop, words)
    for removal in objects:
        made = [statement for statement in removal.restore if statement.startswith(_MAKING)]
        if (words := stage.tried(made[:1])) is not None:
            yield Complaint(removal.kind, removal.identity, None, words)


def _sites(snapshot: Snapshot, objects: Iterable[Removal]) -> Iterator[Table]:
    """Yield what objects sit on and do not make themselves: they must find it on the stage, not the real one."""
    made = {(each.kind, each.identity) for each in objects}
    callers = (found for function in snapshot.functions for found in function.dependents)
    for found in (*snapshot.dependents, *callers):
        if (found.kind, found.identity) in made and found.owner is not None:
            site = snapshot.table(*found.owner)
            if site is not None and not {("view", site.sql), ("materialized view", site.sql)} & made:
                yield site


_MAKING = ("CREATE ", "ALTER PUBLICATION ")
"""What makes an object, or a table part of a publication, begins with one of these."""


class _Stage:
    """Empty schemas in which tables and objects have the names they have in the real ones."""

    def __init__(self, connection: Connection, snapshot: Snapshot) -> None:
        self._connection = connection
        self._schemas: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._relations = [(table.schema, table.name) for table in snapshot.tables if table.kind in ("v", "m")]

    def open(self, schema: str) -> None:
        """Make the schema that stands for another."""
        if schema not in self._schemas:
            self._schemas[schema] = f"{_SCHEMA}_{len(self._schemas)}"
            self._connection.exec_driver_sql(f"CREATE SCHEMA {self._schemas[schema]}")

    def put(self, table: Table, retypes: Iterable[Retype]) -> None:
        """Make a table's double, empty, with the new types."""
        double = quoted(self._schemas[table.schema], table.name)
        # LIKE needs the privilege to read the table, and names need that to look into the schemas of types
        columns = f"LIKE {table.sql}" if table.readable else ", ".join(_column(column) for column in table.columns)
        self._connection.exec_driver_sql(f"CREATE TABLE {double} ({columns})")
        for name, using in {retype.column.name: retype.using for retype in retypes}.items():
            self._connection.exec_driver_sql(f"ALTER TABLE {double} ALTER COLUMN {quoted(name)} TYPE {using}")
        self._names[table.sql] = double

    def put_view(self, view: Table) -> None:
        """Make a view's double, which reads the real one."""
        double = quoted(self._schemas[view.schema], view.name)
        self._connection.exec_driver_sql(f"CREATE VIEW {double} AS SELECT * FROM {view.sql}")
        self._names[view.sql] = double

    def tried(self, statements: Sequence[str]) -> str | None:
        """Make something; return what PostgreSQL says where it cannot be."""
        for statement in statements:
            try:
                with self._connection.begin_nested():
                    self._connection.exec_driver_sql(self._staged(statement))
            except DBAPIError as error:
                return stops.unraised(error)
        return None

    def _staged(self, statement: str) -> str:
        """Return a statement with the names of the doubles."""
        made = re.match(_NAMED, statement)
        if made is not None:
            for schema, own in self._schemas.items():
                prefix = f"{quoted(schema)}."
                if statement[made.end() :].startswith(prefix):
                    rest = statement[made.end() + len(prefix) :]
                    name = re.match(r'"(?:[^"]|"")+"|\w+', rest)
                    if name is not None:
                        # what comes after reads this one, not the real one
                        self._names[f"{prefix}{name[0]}"] = f"{own}.{name[0]}"
        for real in sorted(self._names, key=len, reverse=True):
            double = self._names[real].replace("\\", "\\\\")
            statement = re.sub(rf'(?<![\w".]){re.escape(real)}(?![\w"])', double, statement)
        return statement


_NAMED = r"CREATE (?:OR REPLACE )?(?:MATERIALIZED )?(?:VIEW|FUNCTION|PROCEDURE|STATISTICS) "
"""What begins a statement that makes something with a schema's name of its own."""


def _column(column: Column) -> str:
    collation = f" COLLATE {column.collation}" if column.collation else ""
    return f"{quoted(column.name)} {column.type}{collation}{' NOT NULL' if column.not_null else ''}"
