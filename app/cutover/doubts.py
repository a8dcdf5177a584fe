"""Doubts about which table is users, in words: what was found, and what to say or to run."""

from __future__ import annotations

from app.cutover.catalog import Table, quoted
from app.cutover.flags import flag
from app.cutover.layout import NONE, Doubt
from app.cutover.signatures import SIGNATURES, USERS, normalised


def taken(table: Table) -> Doubt:
    missing = SIGNATURES[USERS].core - {normalised(column.name) for column in table.columns}
    return Doubt(
        "users-name-taken",
        table.sql,
        f"{table.sql} exists and is no users table of Better Auth's: it lacks {', '.join(sorted(missing)) or 'nothing'}"
        f"{'' if table.kind in ('r', 'p') else ', and is no table'}.",
        "Set DATABASE_SCHEMA to a schema in which the name users is free; or, if it is the users table after all, "
        f"{flag('map', f'{USERS}={table.sql}')}\n-- shadow inspect then names what it lacks",
    )


def unknown(possible: list[Table]) -> Doubt:
    names = ", ".join(table.sql for table in possible)
    options = [flag("map", f"{USERS}={table.sql}") for table in possible]
    return Doubt(
        "role-missing",
        USERS,
        f"No table was recognised as Better Auth's users; by what refers to it, {names} could be.",
        "\n".join([*options, f"--map {USERS}={NONE}"]),
    )


def without_users(going: list[Table], likely: list[Table]) -> Doubt:
    named = {table.key: flag("map", f"{USERS}={table.sql}") for table in likely if table not in going}
    return Doubt(
        "role-missing",
        USERS,
        f"{', '.join(table.sql for table in going)} look like Better Auth's, but no table has the columns of its users "
        f"({', '.join(sorted(SIGNATURES[USERS].core))}).",
        "\n".join(named.values()) or "Restore its users table first: what these tables refer to is not there.",
    )


def occupied(taken: Table, users: Table) -> Doubt:
    kind = {"v": "VIEW", "m": "MATERIALIZED VIEW", "f": "FOREIGN TABLE"}.get(taken.kind, "TABLE")
    return Doubt(
        "users-name-taken",
        taken.sql,
        f"{users.sql} is to become {taken.sql}, but there is a {kind.lower()} of that name already.",
        f"ALTER {kind} {taken.sql} RENAME TO {quoted(taken.name + '_old')};\n"
        f"-- or, if it is the one: --map users={taken.schema}.{taken.name}",
    )


def hidden(table: Table, role: str) -> Doubt:
    return Doubt(
        "row-security",
        table.sql,
        f"{table.sql} has FORCE ROW LEVEL SECURITY, so that {role} may not see all of its rows: they could neither be "
        "counted nor copied.",
        f"ALTER TABLE {table.sql} NO FORCE ROW LEVEL SECURITY;\n"
        f"-- or run this as a role with BYPASSRLS; afterwards, if it is to be forced again:\n"
        f"-- ALTER TABLE {table.sql} FORCE ROW LEVEL SECURITY;",
    )
