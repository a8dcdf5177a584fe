"""A rehearsal: whether what reads a uuid or number id can be made again when the id is text, and whether event triggers
let the structure be changed at all.

PostgreSQL knows no operator between text and uuid, so a policy, view or check that compares the two cannot come back.
Which those are, only PostgreSQL can tell: they are made over empty tables of the same names and the new types, in a
schema that is gone again with the savepoint it was made in. What an event trigger forbids only its function can tell:
it is called by the like of what the cutover does, in the same way.

The promise: nothing stays, no row is read, and nobody waits: the real tables are looked at, not locked against anybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.cutover import aside, surroundings
from app.cutover.catalog import Snapshot, Table, quoted
from app.cutover.changes import Changes, Retype, children
from app.cutover.findings import Complaint, Options
from app.cutover.layout import KEPT_COLUMNS, RETIRED_SCHEMA, without_beside
from app.cutover.signatures import USERS

EVENT_TRIGGER = "event trigger"
"""The kind of a complaint about one."""
_SCHEMA = "shadow_rehearsal"
_PASSING = frozenset({"08", "40", "53", "55", "57"})
"""Classes of SQLSTATE that are no function's opinion: connections, conflicts, resources, locks, operators."""


def rehearse(connection: Connection, snapshot: Snapshot, changes: Changes, options: Options) -> tuple[Complaint, ...]:
    """Return what could not be made again over the new types, or what forbids all of it; nothing is the usual."""
    if not snapshot.may_create_schema:
        return ()
    if forbidden := _forbidden(connection, snapshot, changes):
        return forbidden
    if not changes.retypes:
        return ()
    with connection.begin_nested() as savepoint:
        found = tuple(_complaints(connection, without_beside(snapshot), changes, options))
        savepoint.rollback()
    return found


def _forbidden(connection: Connection, snapshot: Snapshot, changes: Changes) -> tuple[Complaint, ...]:
    """Return the event triggers of which one raises an error, by what it says, when something like retire is done."""
    triggers = surroundings.event_triggers(connection)
    if not triggers or not changes.any:
        return ()
    words, context = None, ""
    with connection.begin_nested() as savepoint:
        for statement in _like_retire(snapshot, changes):
            try:
                with connection.begin_nested():
                    connection.exec_driver_sql(statement)
            except DBAPIError as error:
                if (getattr(error.orig, "sqlstate", None) or "08")[:2] in _PASSING:
                    raise
                cause = error.orig.__cause__ if error.orig else None
                words, context = _said(error), getattr(cause, "context", None) or ""
                break
        savepoint.rollback()
    if words is None:
        return ()
    named = tuple(trigger for trigger in triggers if _mentions(context, trigger.function))
    return tuple(Complaint(EVENT_TRIGGER, trigger.name, None, words) for trigger in named or triggers)


def _like_retire(snapshot: Snapshot, changes: Changes) -> Iterator[str]:
    """Yield one statement of each kind that retire has, over tables of its own."""
    schema = RETIRED_SCHEMA if RETIRED_SCHEMA not in snapshot.schemas else _SCHEMA
    table = f"{schema}.{USERS}"
    yield f"CREATE SCHEMA {schema}"
    yield f"COMMENT ON SCHEMA {schema} IS 'a rehearsal'"
    yield f"CREATE TABLE {table} (id integer PRIMARY KEY, status text)"
    yield f"CREATE TABLE {schema}.{KEPT_COLUMNS} AS SELECT id, status FROM {table}"
    yield f"ALTER TABLE {table} ADD COLUMN deleted_at timestamp with time zone"
    yield f"ALTER TABLE {table} DROP COLUMN status"
    if any(retype.rewrites for retype in changes.retypes):
        yield f"ALTER TABLE {table} ALTER COLUMN id TYPE text USING id::text"


def _mentions(context: str, function: str) -> bool:
    """Whether where an error arose, in PostgreSQL's words, is a function."""
    name = function.partition("(")[0].rpartition(".")[2].strip('"')
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", context) is not None


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
    # what sits on a table must find it here, not the real one
    sites = (snapshot.table(*found.owner) for found in changes.carried if found.owner is not None)
    retyped.update({site: [] for site in sites if site is not None and site.kind in "rp" and site not in retyped})
    for table, retypes in retyped.items():
        stage.put(table, retypes)
    for part in aside.all_parts(changes):
        if (words := stage.tried(part.restore[:1])) is not None:
            yield Complaint(part.kind, f"{quoted(part.name)} of {part.table.sql}", part.drop, words)
    for removal in objects:
        made = [statement for statement in removal.restore if statement.startswith("CREATE ")]
        if (words := stage.tried(made[:1])) is not None:
            yield Complaint(removal.kind, removal.identity, None, words)


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
        self._connection.exec_driver_sql(f"CREATE TABLE {double} (LIKE {table.sql})")
        for name, using in {retype.column.name: retype.using for retype in retypes}.items():
            self._connection.exec_driver_sql(f"ALTER TABLE {double} ALTER COLUMN {quoted(name)} TYPE {using}")
        self._names[table.sql] = double

    def tried(self, statements: Sequence[str]) -> str | None:
        """Make something; return what PostgreSQL says where it cannot be."""
        for statement in statements:
            try:
                with self._connection.begin_nested():
                    self._connection.exec_driver_sql(self._staged(statement))
            except DBAPIError as error:
                return _said(error)
        return None

    def _staged(self, statement: str) -> str:
        """Return a statement with the names of the doubles."""
        made = re.match(r"CREATE (?:OR REPLACE )?(?:MATERIALIZED )?(?:VIEW|FUNCTION|PROCEDURE) ", statement)
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
