"""What is around the tables: who may alter them and who is using them, what would be lost, and what was decided."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from app.cutover import doubts, journal
from app.cutover.catalog import Table, quoted
from app.cutover.changes import children
from app.cutover.findings import Finding, Level, Situation, detached, names_of
from app.cutover.layout import RETIRED_SCHEMA, Role, is_retired_for
from app.cutover.release import held, named
from app.cutover.signatures import normalised


def schema_exists(at: Situation) -> Iterator[Finding]:
    if at.layout.schema not in at.snapshot.schemas:
        yield Finding(
            "schema-missing",
            "refuse",
            at.layout.schema,
            f"The schema {at.layout.schema} (DATABASE_SCHEMA) does not exist in the database {at.snapshot.database}.",
            f"CREATE SCHEMA {quoted(at.layout.schema)};",
        )


def privileges(at: Situation) -> Iterator[Finding]:
    """Everything the role cannot alter, at once."""
    yield from journal.not_given(at.snapshot, at.layout.schema)
    touched = dict.fromkeys(_altered(at))
    if lacking := [table for table in touched if not table.owned]:
        owners = sorted({table.owner for table in lacking})
        yield Finding(
            "missing-privileges",
            "refuse",
            at.snapshot.role,
            f"The role {at.snapshot.role} cannot alter {', '.join(table.sql for table in lacking)}: "
            f"{'it belongs' if len(lacking) == 1 else 'they belong'} to {', '.join(owners)}.",
            "\n".join(f"GRANT {quoted(owner)} TO {quoted(at.snapshot.role)};" for owner in owners),
        )
    users, schema = at.layout.users, at.layout.schema
    given = users is not None and users.owner != at.snapshot.role and not at.snapshot.superuser
    # what is made is given to that role, which PostgreSQL allows where the role could have made it
    if users and given and schema in at.snapshot.schemas and (users.owner, schema) not in at.snapshot.creating_owners:
        yield Finding(
            "missing-privileges",
            "refuse",
            users.owner,
            f"The role {users.owner}, to which {users.sql} belongs and what is made beside it is to belong, may not "
            f"create in the schema {schema}.",
            f"GRANT USAGE, CREATE ON SCHEMA {quoted(schema)} TO {quoted(users.owner)};",
        )
    if at.layout.schema in at.snapshot.schemas and at.layout.schema not in at.snapshot.creatable_schemas:
        yield Finding(
            "missing-privileges",
            "refuse",
            at.layout.schema,
            f"The role {at.snapshot.role} may not create tables in the schema {at.layout.schema}.",
            f"GRANT USAGE, CREATE ON SCHEMA {quoted(at.layout.schema)} TO {quoted(at.snapshot.role)};",
        )


def _altered(at: Situation) -> Iterator[Table]:
    """Every table and view that the actions ahead alter, move or drop."""
    users, changes = at.layout.users, at.changes
    if users is not None:
        yield users
    if at.actions == ("adopt",):
        return
    names = sorted(at.going)
    names += [key.table for key in at.snapshot.keys_to(*at.going) if detached(key, at.options)]
    if changes is not None and "retire" in at.actions:
        names += [below.key for table in changes.touched for below in (table, *children(at.snapshot, table))]
        names += [name for key in changes.keys for name in (key.table, key.target)]
        names += [found.owner for found in changes.carried if found.owner is not None]
        names += [changes.rate_limits.key] if changes.rate_limits else []
    for name in names:
        if (table := at.snapshot.table(*name)) is not None:
            yield table


def may_make_schema(at: Situation) -> Iterator[Finding]:
    """Retiring needs a schema of its own."""
    moves = at.changes is not None and at.changes.any
    if moves and not at.snapshot.may_create_schema:
        yield Finding(
            "missing-privileges",
            "refuse",
            at.snapshot.database,
            f"The role {at.snapshot.role} may not create the schema {RETIRED_SCHEMA} in the database.",
            f"GRANT CREATE ON DATABASE {quoted(at.snapshot.database)} TO {quoted(at.snapshot.role)};",
        )
    if moves and (comment := is_retired_for(at.snapshot)) is not None:
        yield Finding(
            "schema-taken",
            "refuse",
            RETIRED_SCHEMA,
            f"The schema {RETIRED_SCHEMA} keeps the tables of another app in this database: {comment}",
            "-- with the DATABASE_SCHEMA named there, finish its cutover first:\nshadow migrate --to drop",
        )
    elif moves and RETIRED_SCHEMA in at.snapshot.schemas:
        yield Finding(
            "schema-taken",
            "refuse",
            RETIRED_SCHEMA,
            f"The schema {RETIRED_SCHEMA} exists already; the tables that go are to be kept there.",
            f"ALTER SCHEMA {RETIRED_SCHEMA} RENAME TO {RETIRED_SCHEMA}_old;",
        )


def decisions_apply(at: Situation) -> Iterator[Finding]:
    """What a person named has to be there: a typing error must not pass for a decision."""
    users = at.layout.users
    for name in sorted(at.options.choices.keep):
        own = name.removeprefix("users.")
        if users is None or all(own not in (column.name, normalised(column.name)) for column in users.columns):
            yield Finding(
                "nothing-of-that-name", "refuse", name, f"--keep {name}: users has no such column.", "shadow inspect"
            )
    into = [key for key in at.snapshot.keys_to(*at.going) if key.table not in at.going]
    for name in sorted(at.options.detach):
        if not any(name in names_of(key) for key in into):
            yield Finding(
                "nothing-of-that-name",
                "refuse",
                name,
                f"--detach {name}: there is no foreign key on that column into a table that goes.",
                "shadow plan",
            )

    for name in sorted(at.options.release):
        if not named(at.objects, name):
            yield Finding(
                "nothing-of-that-name",
                "refuse",
                name,
                f"--release {name}: there is no such object.",
                "shadow plan",
            )
        elif bound := held(at.objects, named(at.objects, name)):
            what = ", ".join(f"the {found.kind} {found.identity}" for found in bound)
            yield Finding(
                "cannot-release",
                "refuse",
                name,
                f"--release {name}: {what} cannot be taken out and put back.",
                "shadow plan",
            )


def left_over(at: Situation) -> Iterator[Finding]:
    """What somebody put into the schema of the retired tables, which goes with them."""
    ours = {*at.going, *((RETIRED_SCHEMA, name) for name in journal.KEPT_TABLES)}
    if at.layout.kind != "retired":
        return
    for table in at.snapshot.tables:
        if table.schema == RETIRED_SCHEMA and table.key not in ours:
            yield Finding(
                "schema-not-empty",
                "refuse",
                table.sql,
                f"{table.sql} is none of the retired tables, and the schema {RETIRED_SCHEMA} is to be dropped.",
                f"ALTER TABLE {table.sql} SET SCHEMA {quoted(at.layout.schema)};",
            )


def identities(level: Level) -> Callable[[Situation], Iterator[Finding]]:
    """Ways to sign in that exist nowhere else: retiring can be undone, dropping cannot."""

    def rule(at: Situation) -> Iterator[Finding]:
        lost = at.census.identities
        if lost.any and not (level == "warn" and "drop" in at.actions):
            passkeys = f"{lost.passkeys:,} have passkeys, " if lost.passkeys else ""
            yield Finding(
                "identities-not-exported",
                level,
                "accounts",
                f"{lost.password_only:,} users have a password here as their only way in, {lost.linked:,} have linked "
                f"providers, {passkeys}{lost.second_factors:,} have second factors, and no export of them is known.",
                "--accept identities-not-exported\n-- once they were imported at the provider"
                if level == "refuse"
                else "-- import them at the provider before shadow migrate --to drop, which cannot be undone",
            )

    return rule


def live_sessions(at: Situation) -> Iterator[Finding]:
    """Sessions that are still valid: is the old app really gone?"""
    sessions = at.layout.role("sessions")
    if at.census.live_sessions is None and sessions is not None:
        yield Finding(
            "live-sessions",
            "warn",
            "sessions",
            f"How many sessions are still valid is not known: nothing says which column of {sessions.table.sql} tells "
            "when one expires. Whoever holds one is signed out.",
            _expiring(at, sessions),
        )
    if at.census.live_sessions:
        newest = at.census.newest_session
        since = f", the newest from {newest:%Y-%m-%d %H:%M} UTC" if newest else ""
        yield Finding(
            "live-sessions",
            "warn",
            "sessions",
            f"{at.census.live_sessions:,} sessions are still valid{since}; whoever holds one is signed out.",
            "-- make sure that the old app no longer signs people in",
        )


def _expiring(at: Situation, sessions: Role) -> str:
    """Return a line for each column that could say when a session expires."""
    lines = doubts.parts(at.snapshot, sessions.table, "sessions", sessions.fields, ["expires_at"], at.layout.users)
    # that there are none would be the wrong answer: they go all the same
    return lines if "sessions.expires_at=" in lines else "-- make sure that the old app no longer signs people in"


def backup(at: Situation) -> Iterator[Finding]:
    """Nothing here knows of a backup."""
    tables = [*((at.layout.users,) if at.layout.users else ()), *at.layout.going]
    if len(tables) > 1 or at.layout.going_columns:
        retired = at.layout.kind == "retired"
        names = f"-n {RETIRED_SCHEMA}" if retired else " ".join(f"-t {shlex.quote(table.sql)}" for table in tables)
        yield Finding(
            "no-backup",
            "warn",
            at.snapshot.database,
            "No backup is known to this tool.",
            f'pg_dump -Fc {names} -f before-{"drop" if retired else "cutover"}.dump "$DATABASE_URL"',
        )
