"""The view `users` of adopt: the target's names over the old app's table, so that both apps run on the same rows.

The promise: an auto-updatable view, without triggers: what the server inserts through it is a row the old app reads,
and the other way round. Who may do what to the table may do it to the view, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.cutover.catalog import Snapshot, Table, literal, quoted
from app.cutover.changes import Changes
from app.cutover.layout import BESIDE_COMMENT
from app.cutover.signatures import ADDED_COLUMNS, TARGET_COLUMNS, USERS


def schema_of(changes: Changes) -> str:
    """Return where the view is: beside the tables; in a schema of its own where the table has the name itself."""
    if changes.users.key == (changes.schema, USERS):
        return beside_schema(changes.schema)
    return changes.schema


def beside_schema(schema: str) -> str:
    """Return the schema that the server looks into before `schema`, if it is there."""
    return f"{schema}_shadow"


def creation(snapshot: Snapshot, changes: Changes) -> Iterator[str]:
    """Return the SQL that makes the view."""
    schema = schema_of(changes)
    view = quoted(schema, USERS)
    if schema != changes.schema:
        yield f"CREATE SCHEMA {quoted(schema)}"
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
    # without this the view would show its owner's rows to whoever may read it
    security = " WITH (security_invoker = true)" if changes.users.row_security and snapshot.version >= 150000 else ""
    selected = ",\n    ".join(columns)
    yield f"CREATE VIEW {view}{security} AS SELECT\n    {selected}\nFROM {changes.users.sql}"
    yield f"COMMENT ON VIEW {view} IS {literal(BESIDE_COMMENT)}"
    for name, default in (("email_verified", "false"), ("created_at", "now()"), ("updated_at", "now()")):
        yield f"ALTER VIEW {view} ALTER COLUMN {name} SET DEFAULT {default}"
    yield from _grants(changes.users, view)
    if schema != changes.schema:
        yield from (f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {to}" for to, _ in _granted(changes.users))


def _granted(table: Table) -> Iterator[tuple[str, str]]:
    """Return who was granted what on a table, as SQL names and letters."""
    for item in table.privileges or ():
        grantee, _, letters = item.rpartition("/")[0].rpartition("=")
        if grantee != quoted(table.owner):
            yield grantee or "PUBLIC", letters


def _grants(table: Table, on: str) -> Iterator[str]:
    """Return the grants on a table as grants on a view."""
    for to, letters in _granted(table):
        for letter, privilege in _PRIVILEGES.items():
            if letter in letters:
                option = " WITH GRANT OPTION" if f"{letter}*" in letters else ""
                yield f"GRANT {privilege} ON {on} TO {to}{option}"


_PRIVILEGES = {"r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
"""Letters of an aclitem (PostgreSQL, 5.8 Privileges)."""


def removal(changes: Changes) -> Iterator[str]:
    """Return the SQL that drops the view."""
    schema = schema_of(changes)
    yield f"DROP VIEW {quoted(schema, USERS)}"
    if schema != changes.schema:
        yield f"DROP SCHEMA {quoted(schema)}"


def compatible(changes: Changes) -> Iterator[str]:
    """Return the SQL of `--compat-view`: the old names over the new table."""
    old, new = changes.users.sql, dict(changes.renames)
    going = {column.name for column in changes.going}
    columns = [
        f"{quoted(new[column.name])} AS {quoted(column.name)}" if column.name in new else quoted(column.name)
        for column in changes.users.columns
        if column.name not in going
    ]
    columns += [name for name in ADDED_COLUMNS if changes.users.column(name) is None and name not in changes.fields]
    yield f"CREATE VIEW {old} AS SELECT {', '.join(columns)} FROM {quoted(changes.schema, USERS)}"
    yield f"COMMENT ON VIEW {old} IS 'The old names over users, for code that still reads them.'"
    yield from _grants(changes.users, old)
