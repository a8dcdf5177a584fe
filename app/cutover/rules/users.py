"""What users has to be for the server, and which of its columns are the app's own."""

from __future__ import annotations

from collections.abc import Iterator

from app.cutover.catalog import Table, quoted
from app.cutover.findings import Finding, Situation
from app.cutover.flags import flag
from app.cutover.shapes import stand_in
from app.cutover.signatures import ADDED_COLUMNS, GOING_COLUMNS, normalised


def id_is_primary_key(at: Situation) -> Iterator[Finding]:
    """The server inserts with ON CONFLICT (id)."""
    users = at.layout.users
    if users is None:
        return
    column = at.layout.fields["id"]
    own = quoted(column.name)
    if column.not_null and _unique_at_once(users, column.name, "pu"):
        return
    key = next((constraint for constraint in users.constraints if constraint.kind == "p"), None)
    if key is not None and key.columns == (column.name,):  # deferrable: nothing can refer to it
        remedy = f"DROP CONSTRAINT {quoted(key.name)}, ADD CONSTRAINT {quoted(key.name)} PRIMARY KEY ({own});"
    elif key is not None:
        remedy = f"ADD CONSTRAINT {_unused(users, 'id')} UNIQUE ({own}), ALTER COLUMN {own} SET NOT NULL;  -- is enough"
    else:
        remedy = f"ADD PRIMARY KEY ({own});"
    yield Finding(
        "id-not-primary-key",
        "refuse",
        f"{users.sql}.{own}",
        f"{users.sql}.{own} is not the primary key (at once, not deferrable) of users, which the server needs"
        + (f": that is {key.definition}." if key else "."),
        f"{_double(users.sql, own, own)}ALTER TABLE {users.sql} {remedy}",
    )


def _unused(users: Table, column: str) -> str:
    """Return a name, as SQL, for a unique constraint that users can have."""
    taken = {each.name for each in users.constraints} | {each.name for each in users.indexes}
    names = (f"users_{column}_{word}{number}" for number in ("", 2, 3) for word in ("unique", "key", "at_once"))
    return quoted(next(name for name in names if name not in taken))


def _double(users: str, column: str, shown: str) -> str:
    """Return the query for what a unique constraint would stumble over."""
    return f"SELECT {column}, array_agg({shown}) FROM {users} GROUP BY 1 HAVING count(*) > 1;  -- must find nothing\n"


def email_is_unique(at: Situation) -> Iterator[Finding]:
    """The server settles who holds an address by the unique constraint."""
    users = at.layout.users
    if users is None:
        return
    name = at.layout.fields["email"].name
    own = quoted(name)
    over = [index for index in users.indexes if index.unique and index.valid and index.columns == (name,)]
    if _unique_at_once(users, name, "pu") or any(index.definition.endswith(f"({own})") for index in over):
        return
    yield Finding(
        "email-not-unique",
        "refuse",
        f"{users.sql}.{own}",
        f"{users.sql}.{own} has no unique constraint that holds at once (not deferrable), which the server needs.",
        _double(users.sql, own, quoted(at.layout.fields["id"].name))
        + f"ALTER TABLE {users.sql} ADD CONSTRAINT {_unused(users, 'email')} UNIQUE ({own});",
    )


def _unique_at_once(users: Table, column: str, kinds: str) -> bool:
    """Whether a constraint that is checked at once says so: ON CONFLICT takes no deferrable one as arbiter."""
    found = [c for c in users.constraints if c.kind in kinds and c.columns == (column,)]
    return any(" DEFERRABLE" not in constraint.definition for constraint in found)


def is_unique(users: Table, column: str) -> bool:
    """Whether no two rows may have the same value in a column."""
    keys = [constraint.columns for constraint in users.constraints if constraint.kind in "pu"]
    return (column,) in [*keys, *(index.columns for index in users.indexes if index.unique)]


def inherited_columns(at: Situation) -> Iterator[Finding]:
    """What a table above has is dropped, renamed and retyped there, for all that inherit it."""
    users, changes = at.layout.users, at.changes
    if users is None or changes is None or not users.parents:
        return
    renamed = {own for own, _ in changes.renames}
    retyped = {each.column.name for each in changes.retypes if each.table.key == users.key}
    changed = at.going_columns | renamed | retyped
    if names := [column.name for column in users.columns if column.inherited and column.name in changed]:
        parents = ", ".join(quoted(*parent) for parent in users.parents)
        yield Finding(
            "inherited-column",
            "refuse",
            users.sql,
            f"{users.sql} inherits {', '.join(map(quoted, names))} from {parents}, so that it cannot be changed here.",
            "\n".join(f"ALTER TABLE {users.sql} NO INHERIT {quoted(*parent)};" for parent in users.parents)
            + "\n-- the columns stay, and are its own from then on",
        )


def required_columns(at: Situation) -> Iterator[Finding]:
    """A column of the app's own that is NOT NULL without default: the server could not insert a user."""
    users = at.layout.users
    if users is None:
        return
    known = {column.name for name, column in at.layout.fields.items() if name not in ADDED_COLUMNS}
    for column in users.columns:
        filled = column.default is not None or column.identity or column.generated
        if column.not_null and not filled and column.name not in known | at.going_columns:
            yield Finding(
                "required-column",
                "refuse",
                f"users.{column.name}",
                f"users.{column.name} ({column.type}) is NOT NULL without a default; the server, which does not know "
                "it, could never insert a new user.",
                f"ALTER TABLE {users.sql} ALTER COLUMN {quoted(column.name)} SET DEFAULT "
                f"{stand_in(column, distinct=is_unique(users, column.name))};\n"
                "-- or, if a trigger fills it:\n--accept required-column",
            )


def columns_by_name(at: Situation) -> Iterator[Finding]:
    """Columns for which only their name speaks, and columns of a known name that are of another type."""
    users = at.layout.users
    for column in at.layout.going_columns:
        if column.by_name_only:
            yield Finding(
                "column-by-name",
                "warn",
                f"users.{column.name}",
                f"users.{column.name} goes because of its name alone ({column.reason.split(' put')[0]} uses it); "
                "nothing else says whose it is.",
                f"{flag('keep', f'users.{column.name}')}\n-- if it is the app's own",
            )
    for own in users.columns if users else ():
        if normalised(own.name) in GOING_COLUMNS and own.name not in at.going_columns:
            yield Finding(
                "column-kept",
                "info",
                f"users.{own.name}",
                f"users.{own.name} ({own.type}) stays as the app's own.",
                "-- nothing to do",
            )


def colliding_emails(at: Situation) -> Iterator[Finding]:
    if at.census.colliding_emails:
        email, id_column = (quoted(at.layout.fields[name].name) for name in ("email", "id"))
        yield Finding(
            "email-case",
            "warn",
            "users.email",
            f"{at.census.colliding_emails:,} addresses are held by several users whose spelling differs in case only; "
            "a provider that lower-cases addresses knows one of them.",
            f"SELECT lower({email}), array_agg({id_column}) FROM {at.layout.users.sql if at.layout.users else 'users'} "
            "GROUP BY 1 HAVING count(*) > 1;",
        )
