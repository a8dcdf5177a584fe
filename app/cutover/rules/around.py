"""What is around the tables: who may alter them and who is using them, what would be lost, and what was decided."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from app.cutover.catalog import Table, quoted
from app.cutover.changes import RATE_LIMIT_ROWS
from app.cutover.findings import Finding, Level, Situation, detached, names_of
from app.cutover.layout import KEPT_COLUMNS, RETIRED_SCHEMA


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
    users = at.layout.users
    touched: list[Table] = [*((users,) if users else ()), *(at.layout.going if at.actions != ("adopt",) else ())]
    for key in at.snapshot.keys_to(*at.going) if "retire" in at.actions else ():
        if detached(key, at.options) and (own := at.snapshot.table(*key.table)) is not None and own not in touched:
            touched.append(own)
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
    if at.layout.schema in at.snapshot.schemas and at.layout.schema not in at.snapshot.creatable_schemas:
        yield Finding(
            "missing-privileges",
            "refuse",
            at.layout.schema,
            f"The role {at.snapshot.role} may not create tables in the schema {at.layout.schema}.",
            f"GRANT USAGE, CREATE ON SCHEMA {quoted(at.layout.schema)} TO {quoted(at.snapshot.role)};",
        )


def may_make_schema(at: Situation) -> Iterator[Finding]:
    """Retiring needs a schema of its own."""
    moves = bool(at.layout.going or at.layout.going_columns) and at.layout.kind != "retired"
    if moves and not at.snapshot.may_create_schema:
        yield Finding(
            "missing-privileges",
            "refuse",
            at.snapshot.database,
            f"The role {at.snapshot.role} may not create the schema {RETIRED_SCHEMA} in the database.",
            f"GRANT CREATE ON DATABASE {quoted(at.snapshot.database)} TO {quoted(at.snapshot.role)};",
        )
    if moves and RETIRED_SCHEMA in at.snapshot.schemas:
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
        if users is None or users.column(name.removeprefix("users.")) is None:
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


def left_over(at: Situation) -> Iterator[Finding]:
    """What somebody put into the schema of the retired tables, which goes with them."""
    ours = {*at.going, (RETIRED_SCHEMA, KEPT_COLUMNS), (RETIRED_SCHEMA, RATE_LIMIT_ROWS)}
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
            yield Finding(
                "identities-not-exported",
                level,
                "accounts",
                f"{lost.password_only:,} users have a password here as their only way in, {lost.linked:,} have linked "
                f"providers, {lost.second_factors:,} have second factors, and no export of them is known.",
                "Import them at the provider first; then --accept identities-not-exported"
                if level == "refuse"
                else "Import them at the provider before shadow migrate --to drop, which cannot be undone.",
            )

    return rule


def live_sessions(at: Situation) -> Iterator[Finding]:
    """Sessions that are still valid: is the old app really gone?"""
    if at.census.live_sessions:
        newest = at.census.newest_session
        since = f", the newest from {newest:%Y-%m-%d %H:%M} UTC" if newest else ""
        yield Finding(
            "live-sessions",
            "warn",
            "sessions",
            f"{at.census.live_sessions:,} sessions are still valid{since}; whoever holds one is signed out.",
            "Make sure that the old app no longer signs people in.",
        )


def long_transactions(at: Situation) -> Iterator[Finding]:
    for other in at.census.long_transactions:
        who = f"{other.role}, {other.application}" if other.application else other.role
        yield Finding(
            "long-transaction",
            "warn",
            f"pid {other.pid}",
            f"A transaction of pid {other.pid} ({who}) has been open for {other.seconds:,} s; a lock may have to "
            "wait for it.",
            f"SELECT pg_terminate_backend({other.pid}); if nobody misses it.",
        )


def backup(at: Situation) -> Iterator[Finding]:
    """Nothing here knows of a backup."""
    tables = [*((at.layout.users,) if at.layout.users else ()), *at.layout.going]
    if len(tables) > 1 or at.layout.going_columns:
        names = " ".join(f"-t '{table.sql}'" for table in tables)
        yield Finding(
            "no-backup",
            "warn",
            at.snapshot.database,
            "No backup is known to this tool.",
            f'pg_dump -Fc {names} -f before-cutover.dump "$DATABASE_URL"',
        )
