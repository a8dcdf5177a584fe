"""The view `users` of adopt: the target's names over the old app's table, so that both apps run on the same rows.

The promise: an auto-updatable view, without triggers: what the server inserts through it is a row the old app reads,
and the other way round. Who may do what to the table may do it to the view, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.cutover import restore
from app.cutover.catalog import Grant, Snapshot, Table, literal, quoted
from app.cutover.changes import Changes
from app.cutover.layout import BESIDE_COMMENT, is_beside
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
    yield from _schema(snapshot, changes)
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
        to = dict.fromkeys(grant.grantee for grant in _granted(changes.users))
        yield from (f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {each}" for each in to)


def _schema(snapshot: Snapshot, changes: Changes) -> Iterator[str]:
    schema = schema_of(changes)
    if schema != changes.schema:
        yield f"CREATE SCHEMA {quoted(schema)}"
        if (owner := changes.owner_but(snapshot.role)) is not None:
            yield f"ALTER SCHEMA {quoted(schema)} OWNER TO {quoted(owner)}"


def standing(snapshot: Snapshot, changes: Changes) -> Table | None:
    """Return the view as it stands, None where it is still to be made."""
    table = snapshot.table(schema_of(changes), USERS)
    return table if table is not None and is_beside(table) else None


def again(snapshot: Snapshot, changes: Changes, view: Table) -> Iterator[str]:
    """Return the SQL that makes the view again as it stands, with what the app gave and put on it since adopt."""
    yield from _schema(snapshot, changes)
    if view.schema != changes.schema:
        users = (role for schema, role in snapshot.schema_users if schema == view.schema)
        yield from (f"GRANT USAGE ON SCHEMA {quoted(view.schema)} TO {role}" for role in users)
    yield from restore.view(view, snapshot.default_grantees)
    yield from (each for rule in view.rules for each in restore.rule(view, rule))
    yield from (each for trigger in view.triggers for each in restore.trigger(view, trigger))


def given_since(changes: Changes, view: Table) -> list[tuple[str, str]]:
    """Return what was given on the view and not on the table, as what gives it on the table and what takes it back.

    Who reads and writes users through the view goes on doing so when the table has its place and its name.
    """
    table, owner = changes.users, quoted(changes.users.owner)
    own = {name: column.name for name, column in changes.fields.items()}
    had = {(grant.grantee, each) for grant in _granted(table) for each in grant.each}
    given: dict[tuple[str, str], bool] = {}
    for grant in _granted(view):
        for each in grant.each:
            if each in _PRIVILEGES and (grant.grantee, each) not in had and grant.grantee != owner:
                given[grant.grantee, each] = given.get((grant.grantee, each), False) or grant.grantable
    for column in view.columns:
        there = table.column(own.get(column.name, column.name))
        if there is None:
            continue
        on_table = {(grant.grantee, each) for grant in there.grants or () for each in grant.each}
        for grant in column.grants or ():
            for each in grant.each:
                known = (grant.grantee, each) in on_table | had | given.keys()
                if each in _PRIVILEGES and not known and grant.grantee != owner:
                    given[grant.grantee, f"{each} ({quoted(there.name)})"] = grant.grantable
    return [
        (
            f"GRANT {what} ON {table.sql} TO {role}{' WITH GRANT OPTION' if grantable else ''}",
            f"REVOKE {what} ON {table.sql} FROM {role}",
        )
        for (role, what), grantable in given.items()
    ]


def put_on(view: Table) -> list[str]:
    """Return what somebody put on the view since adopt that has no place on a table, in words."""
    found = [f"the trigger {trigger.name}" for trigger in view.triggers]
    found += [f"the rule {rule.name}" for rule in view.rules]
    found += [f"the option {option}" for option in view.options if not option.startswith("security_invoker=")]
    *_, last = (view.definition or "FROM").strip().removesuffix(";").splitlines()
    if not last.lstrip().startswith("FROM "):
        found.append(f"its condition, {' '.join(last.split())}")
    return found


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
    for grant in _granted(table):
        option = " WITH GRANT OPTION" if grant.grantable else ""
        given = (each for each in _PRIVILEGES if each in grant.each)
        yield from (f"GRANT {each} ON {view} TO {grant.grantee}{option}" for each in given)
    for column in table.columns:
        for privilege in column.privileges if column.name in columns else ():
            kind, _, rest = privilege.partition(" TO ")
            if kind != "REFERENCES":
                yield f"GRANT {kind} ({quoted(columns[column.name])}) ON {view} TO {rest}"


_INVOKER = 150000
"""server_version_num from which a view can be read with the rights of who reads it."""


def _granted(table: Table) -> Iterator[Grant]:
    """Return what was granted on a table or view to others than its owner."""
    return (grant for grant in table.grants or () if grant.grantee != quoted(table.owner))


_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")
"""What can be done through a view (PostgreSQL, 5.8 Privileges)."""


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
