"""What users has to be for the server, and which of its columns are the app's own."""

from __future__ import annotations

from collections.abc import Iterator

from app.cutover.catalog import Table, quoted
from app.cutover.findings import Finding, Situation
from app.cutover.flags import flag
from app.cutover.signatures import ADDED_COLUMNS, GOING_COLUMNS, normalised


def id_is_primary_key(at: Situation) -> Iterator[Finding]:
    users = at.layout.users
    if users is None:
        return
    column = at.layout.fields["id"].name
    if not _unique_at_once(users, column, "p"):
        yield Finding(
            "id-not-primary-key",
            "refuse",
            f"{users.sql}.{quoted(column)}",
            f"{users.sql}.{quoted(column)} is not the primary key (at once, not deferrable) of users, which the server "
            "needs.",
            f"ALTER TABLE {users.sql} ADD PRIMARY KEY ({quoted(column)});",
        )


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
        f"ALTER TABLE {users.sql} ADD CONSTRAINT users_email_unique UNIQUE ({own});",
    )


def _unique_at_once(users: Table, column: str, kinds: str) -> bool:
    """Whether a constraint that is checked at once says so: ON CONFLICT takes no deferrable one as arbiter."""
    found = [c for c in users.constraints if c.kind in kinds and c.columns == (column,)]
    return any(" DEFERRABLE" not in constraint.definition for constraint in found)


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
                f"ALTER TABLE {users.sql} ALTER COLUMN {quoted(column.name)} SET DEFAULT ...;\n"
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
        email = quoted(at.layout.fields["email"].name)
        yield Finding(
            "email-case",
            "warn",
            "users.email",
            f"{at.census.colliding_emails:,} addresses are held by several users whose spelling differs in case only; "
            "a provider that lower-cases addresses knows one of them.",
            f"SELECT lower({email}), array_agg(id) FROM {at.layout.users.sql if at.layout.users else 'users'} "
            "GROUP BY 1 HAVING count(*) > 1;",
        )
