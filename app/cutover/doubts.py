"""Doubts about which table is users, in words: what was found, and what to say or to run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from app.cutover import shapes
from app.cutover.catalog import Column, Snapshot, Table, quoted
from app.cutover.flags import flag
from app.cutover.layout import NONE, Doubt
from app.cutover.names import with_suffix
from app.cutover.signatures import SIGNATURES, USERS, normalised


def taken(table: Table, possible: bool) -> Doubt:
    missing = SIGNATURES[USERS].core - {normalised(column.name) for column in table.columns}
    return Doubt(
        "users-name-taken",
        table.sql,
        f"{table.sql} exists and is no users table of Better Auth's: it lacks {', '.join(sorted(missing)) or 'nothing'}"
        f"{'' if table.kind in ('r', 'p') else ', and is no table'}.",
        f"{_renaming(table)}\n-- or set DATABASE_SCHEMA to a schema in which the name users is free"
        + (f"\n-- or, if it is the one (what it lacks is then named):\n{_mapping(table)}" if possible else ""),
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
        "\n".join(named.values()) or "-- restore its users table first: what these tables refer to is not there",
    )


def occupied(taken: Table, users: Table, possible: bool) -> Doubt:
    return Doubt(
        "users-name-taken",
        taken.sql,
        f"{users.sql} is to become {taken.sql}, but there is a {_KINDS.get(taken.kind, 'TABLE').lower()} of that name "
        "already.",
        _renaming(taken) + (f"\n-- or, if it is the one:\n{_mapping(taken)}" if possible else ""),
    )


_KINDS = {"v": "VIEW", "m": "MATERIALIZED VIEW", "f": "FOREIGN TABLE"}


def _renaming(table: Table) -> str:
    return f"ALTER {_KINDS.get(table.kind, 'TABLE')} {table.sql} RENAME TO {quoted(with_suffix(table.name, '_old'))};"


def _mapping(table: Table) -> str:
    return flag("map", f"{USERS}={table.sql}")


def parts(
    snapshot: Snapshot, table: Table, role: str, known: Mapping[str, str], lacking: Iterable[str], users: Table | None
) -> str:
    """Return a line to paste for each column that could play a part of a role; that the role has no table, if none can.

    Args:
        snapshot: the catalogue.
        table: the one that plays the role.
        role: of Better Auth's schema.
        known: the columns that are known, by their parts.
        lacking: the parts that are not.
        users: the users table, where it is known.
    """
    lacking, lines = sorted(lacking), []
    others = {*SIGNATURES[role].full, "created_at", "updated_at"} - set(lacking)
    taken = {known[part] for part in others if part in known}
    for part in lacking:
        free = [column for column in table.columns if column.name not in taken]
        fitting = [column.name for column in free if _plays(snapshot, table, column, part, users)]
        if not fitting:
            return f"{flag('map', f'{role}={NONE}')}\n-- no column of {table.sql} that is left can be its {part}"
        lines += [flag("map", f"{role}.{part}={name}") for name in fitting]
    return "\n".join(lines)


_NUMBERS = frozenset({"count", "counter", "last_request"})
_BOOLEANS = frozenset({"rate_limit_enabled"})
_LISTS = frozenset({"scopes", "redirect_urls", "redirect_uris", "grant_types", "response_types"})


def _plays(snapshot: Snapshot, table: Table, column: Column, part: str, users: Table | None) -> bool:
    """Whether a column's type, or for the owner's id its foreign key, allows a part."""
    if part == "user_id" and users is not None:
        keys = [key for key in snapshot.keys_from(table.key) if key.target == users.key]
        id_ = users.column(shapes.identifier(users) or "")
        of_type = id_ is None or shapes.plain_type(column) == shapes.plain_type(id_)
        return any(column.name in key.columns for key in keys) if keys else of_type
    if part.endswith("_at"):
        return shapes.is_moment(column)
    if part in _NUMBERS:
        return shapes.is_number(column)
    if part in _BOOLEANS:
        return shapes.is_boolean(column)
    if part in _LISTS and (column.type.endswith("[]") or column.type in ("json", "jsonb")):
        return True
    names_something = part == "id" or part.endswith("_id")
    of_ids = shapes.is_number(column) or shapes.plain_type(column) == "uuid"
    return shapes.is_text(column) or (names_something and of_ids)


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
