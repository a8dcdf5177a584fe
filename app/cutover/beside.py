"""The view `users` of adopt: the target's names over the old app's table, so that both apps run on the same rows.

The promise: an auto-updatable view, without triggers: what the server inserts through it is a row the old app reads,
and the other way round. Who may do what to the table may do it to the view, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.cutover import restore
from app.cutover.catalog import Snapshot, Table, literal, quoted
from app.cutover.changes import Changes
from app.cutover.layout import BESIDE_COMMENT
from app.cutover.names import with_suffix
from app.cutover.signatures import ADDED_COLUMNS, TARGET_COLUMNS, USERS


def schema_of(changes: Changes) -> str:
    """Return where the view is: beside the tables; in a schema of its own where the table has the name itself."""
    if changes.users.key == (changes.schema, USERS):
        return beside_schema(changes.schema)
    return changes.schema


def beside_schema(schema: str) -> str:
    """Return the schema that the server looks into before `schema`, if it is there."""
    return with_suffix(schema, "_shadow", (schema,))


def creation(snapshot: Snapshot, changes: Changes) -> Iterator[str]:
    """Return the SQL that makes the view."""
    schema = schema_of(changes)
    view = quoted(schema, USERS)
    if schema != changes.schema:
        yield f"CREATE SCHEMA {quoted(schema)}"
        if (owner := changes.owner_but(snapshot.role)) is not None:
            yield f"ALTER SCHEMA {quoted(schema)} OWNER TO {quoted(owner)}"
    owned = {column.name for column in changes.fields.values()}
    going = {column.name for column in changes.going}
    columns = []
    for name in TARGET_COLUMNS:
        own = changes.fields[name].name if name in changes.fields else name
        columns.append(quoted(own) if own == name else f"{quoted(own)} AS {name}")
    own_columns = [
        c.name for c in changes.users.columns if c.name not in owned | going and c.name not in TARGET_COLUMNS
    ]
    columns += [quoted(name) for name in own_columns]
    names = {changes.fields[name].name: name for name in TARGET_COLUMNS if name in changes.fields}
    names |= {name: name for name in own_columns}
    selected = ",\n    ".join(columns)
    query = f"SELECT\n    {selected}\nFROM {changes.users.sql}"
    yield from _view(snapshot, changes.users, view, names, query)
    yield f"COMMENT ON VIEW {view} IS {literal(BESIDE_COMMENT)}"
    for name, default in (("email_verified", "false"), ("created_at", "now()"), ("updated_at", "now()")):
        yield f"ALTER VIEW {view} ALTER COLUMN {name} SET DEFAULT {default}"
    if schema != changes.schema:
        yield from (f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {to}" for to, _ in _granted(changes.users))


def _view(snapshot: Snapshot, table: Table, view: str, columns: Mapping[str, str], query: str) -> Iterator[str]:
    """Yield what makes a view that lets nobody see or do more than the table does.

    Args:
        snapshot: the catalogue.
        table: whose owner and grants the view gets.
        view: its name as SQL.
        columns: the table's column to the view's.
        query: what follows AS.
    """
    hides = table.row_security
    # without it, policies would be those for the view's owner
    security = " WITH (security_invoker = true)" if hides and snapshot.version >= _INVOKER else ""
    yield f"CREATE VIEW {view}{security} AS {query}"
    if table.owner != snapshot.role:
        yield f"ALTER VIEW {view} OWNER TO {quoted(table.owner)}"
    # what the database gives on any new table was perhaps not given on this one
    yield from restore.grants("TABLE", view, table.owner, None, snapshot.default_grantees)
    if hides and snapshot.version < _INVOKER:
        return  # for the owner alone: whoever else reads it would see what the table's policies hide
    for to, letters in _granted(table):
        for letter, privilege in _PRIVILEGES.items():
            if letter in letters:
                option = " WITH GRANT OPTION" if f"{letter}*" in letters else ""
                yield f"GRANT {privilege} ON {view} TO {to}{option}"
    for column in table.columns:
        for privilege in column.privileges if column.name in columns else ():
            kind, _, rest = privilege.partition(" TO ")
            if kind != "REFERENCES":
                yield f"GRANT {kind} ({quoted(columns[column.name])}) ON {view} TO {rest}"


_INVOKER = 150000
"""server_version_num from which a view can be read with the rights of who reads it."""


def _granted(table: Table) -> Iterator[tuple[str, str]]:
    """Return who was granted what on a table, as SQL names and letters."""
    for item in table.privileges or ():
        grantee, _, letters = item.rpartition("/")[0].rpartition("=")
        if grantee != quoted(table.owner):
            yield grantee or "PUBLIC", letters


_PRIVILEGES = {"r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
"""Letters of an aclitem (PostgreSQL, 5.8 Privileges)."""


def removal(changes: Changes) -> Iterator[str]:
    """Return the SQL that drops the view."""
    schema = schema_of(changes)
    yield f"DROP VIEW IF EXISTS {quoted(schema, USERS)}"
    if schema != changes.schema:
        yield f"DROP SCHEMA IF EXISTS {quoted(schema)}"


def compatible(snapshot: Snapshot, changes: Changes) -> Iterator[str]:
    """Return the SQL of `--compat-view`: the old names over the new table."""
    old, new = changes.users.sql, dict(changes.renames)
    going = {column.name for column in changes.going}
    columns = [
        f"{quoted(new[column.name])} AS {quoted(column.name)}" if column.name in new else quoted(column.name)
        for column in changes.users.columns
        if column.name not in going
    ]
    columns += [name for name in ADDED_COLUMNS if changes.users.column(name) is None and name not in changes.fields]
    query = f"SELECT {', '.join(columns)} FROM {quoted(changes.schema, USERS)}"
    kept = {column.name: column.name for column in changes.users.columns if column.name not in going}
    yield from _view(snapshot, changes.users, old, kept, query)
    yield f"COMMENT ON VIEW {old} IS 'The old names over users, for code that still reads them.'"
