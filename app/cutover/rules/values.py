"""What is in the rows of users: values that the target does not take, and those it takes as something else."""

from __future__ import annotations

from collections.abc import Iterator

from app.cutover.catalog import quoted
from app.cutover.census import LONGEST_ID
from app.cutover.findings import Finding, Situation
from app.cutover.layout import Layout


def _named(layout: Layout, name: str) -> tuple[str, str, str]:
    """Return, for messages and SQL, what a column of the target is now: `users.email`, its table and its column."""
    table = layout.users.sql if layout.users else ""
    column = quoted(layout.fields[name].name)
    return f"{table}.{column}", table, column


def emails(at: Situation) -> Iterator[Finding]:
    """The address is required and unique; who has none gets a placeholder, as the server writes it."""
    found = at.census.values
    if found.emails_null or found.emails_empty:
        subject, table, email = _named(at.layout, "email")
        id_column = quoted(at.layout.fields["id"].name)
        yield Finding(
            "email-missing",
            # one may be empty, and the next token brings another; null is nothing that the column could hold
            "refuse" if found.emails_null else "warn",
            subject,
            f"{subject} is null in {found.emails_null:,} rows and empty in {found.emails_empty:,}; the server needs an "
            "address, or the placeholder that stands for none.",
            f"UPDATE {table} SET {email} = {id_column} || '@placeholder.invalid' "
            f"WHERE {email} IS NULL OR {email}::text = '';",
        )


def ids(at: Situation) -> Iterator[Finding]:
    """Ids that no token can carry: their users could never sign in."""
    if "id" not in at.layout.fields:
        return
    subject, table, column = _named(at.layout, "id")
    repair = (
        f"-- and give each the sub that the provider knows: UPDATE {table} SET {column} = ... WHERE {column} = ...;"
    )
    if count := at.census.values.ids_long:
        yield Finding(
            "id-too-long",
            "warn",
            subject,
            f"{count:,} ids are longer than {LONGEST_ID} characters; a token with such a sub is never accepted.",
            f"SELECT {column} FROM {table} WHERE length({column}) > {LONGEST_ID};\n{repair}",
        )
    if at.census.values.ids_empty:
        yield Finding(
            "id-empty",
            "warn",
            subject,
            "The id of one user is empty; a token with an empty sub is never accepted.",
            f"SELECT * FROM {table} WHERE {column} = '';\n{repair}",
        )


def names(at: Situation) -> Iterator[Finding]:
    found = at.census.values
    if found.names_null or found.names_empty:
        subject, _, _ = _named(at.layout, "name")
        yield Finding(
            "name-missing",
            "info",
            subject,
            f"Of the names, {found.names_null:,} are null and become empty; already empty: {found.names_empty:,}.",
            "-- nothing to do: the next token of each brings its name",
        )


def updated(at: Situation) -> Iterator[Finding]:
    if count := at.census.values.updated_missing:
        subject, _, _ = _named(at.layout, "updated_at")
        since = f" and becomes {_named(at.layout, 'created_at')[0]}" if "created_at" in at.layout.fields else ""
        yield Finding(
            "updated-missing",
            "info",
            subject,
            f"{subject} is null in {count:,} rows{since}.",
            "-- nothing to do",
        )


def infinite_timestamps(at: Situation) -> Iterator[Finding]:
    """PostgreSQL's infinities, which no calendar has; and who is deleted at infinity is deleted to the server."""
    for name, count in at.census.values.infinite.items():
        subject, table, column = _named(at.layout, name)
        is_deletion = name == "deleted_at"
        follows = "the server would take these users for deleted" if is_deletion else "shown as the year 9999 or 1"
        required = f"ALTER TABLE {table} ALTER {column} DROP NOT NULL, ALTER {column} DROP DEFAULT;\n"
        yield Finding(
            "infinite-timestamp",
            "refuse" if is_deletion else "warn",
            subject,
            f"{subject} is infinity or -infinity in {count:,} rows: {follows}.",
            (required if is_deletion and at.layout.fields[name].not_null else "")
            + f"UPDATE {table} SET {column} = {'NULL' if is_deletion else 'now()'} WHERE NOT isfinite({column});",
        )


def soft_deleted(at: Situation) -> Iterator[Finding]:
    if count := at.census.values.soft_deleted:
        subject, table, column = _named(at.layout, "deleted_at")
        id_column = quoted(at.layout.fields["id"].name)
        yield Finding(
            "soft-deleted",
            "info",
            subject,
            f"{count:,} users are deleted here ({subject} is set) and stay so: the server refuses their tokens.",
            f"-- nothing to do; to let one in again: UPDATE {table} SET {column} = NULL WHERE {id_column} = ...;",
        )


def rate_limits(at: Situation) -> Iterator[Finding]:
    limits = at.layout["rate_limits"]
    if at.census.dead_limits and limits is not None:
        yield Finding(
            "rate-limit-rows",
            "info",
            limits.sql,
            f"{at.census.dead_limits:,} rows of {limits.sql} count requests of sessions (session:...), which go; they "
            "are deleted, the others stay.",
            "-- nothing to do",
        )
