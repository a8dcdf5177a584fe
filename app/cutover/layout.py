"""Which table plays which role of Better Auth's schema: recognised by its columns, and every decision with its reason.

The promise: two tables that could both play a role are never chosen between in silence. What cannot be decided is a
`Doubt` that names the candidates; `--map role=schema.table` decides it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from app.cutover.catalog import OWN_TABLES, Snapshot, Table, quoted

RETIRED_SCHEMA = "retired_auth"
KEPT_COLUMNS = "users_columns"
"""Table in RETIRED_SCHEMA with the values of the columns that left users, by id."""

USERS = "users"
SIGNATURES: Mapping[str, frozenset[str]] = {
    "users": frozenset({"id", "email", "email_verified"}),
    "sessions": frozenset({"id", "token", "expires_at", "user_id"}),
    "accounts": frozenset({"id", "account_id", "provider_id", "user_id"}),
    "verifications": frozenset({"id", "identifier", "value", "expires_at"}),
    "jwks": frozenset({"id", "public_key", "private_key"}),
    "two_factors": frozenset({"id", "secret", "backup_codes", "user_id"}),
}
"""Role to the columns that make a table a candidate, in snake_case (Better Auth, Concepts: Database)."""

GOING_ROLES = tuple(role for role in SIGNATURES if role != USERS)

TARGET_COLUMNS: Mapping[str, tuple[str, str]] = {
    "id": ("character varying(255)", "PRIMARY KEY"),
    "name": ("text", "NOT NULL"),
    "email": ("text", "NOT NULL UNIQUE"),
    "email_verified": ("boolean", "NOT NULL DEFAULT false"),
    "image": ("text", ""),
    "onboarding_completed_at": ("timestamp with time zone", ""),
    "created_at": ("timestamp with time zone", "NOT NULL DEFAULT now()"),
    "updated_at": ("timestamp with time zone", "NOT NULL DEFAULT now()"),
    "deleted_at": ("timestamp with time zone", ""),
    "identity_updated_at": ("timestamp with time zone", ""),
}
"""The users table that the server needs: type, and what follows it in CREATE TABLE."""

ADDED_COLUMNS = ("onboarding_completed_at", "deleted_at", "identity_updated_at")
"""Those that Better Auth does not have."""

_TEXT = re.compile(r"text|character varying(\(\d+\))?")
_MOMENT = re.compile(r"timestamp(\(\d\))? with(out)? time zone")
_BOOLEAN = re.compile(r"boolean")

GOING_COLUMNS: Mapping[str, tuple[str, re.Pattern[str], str | None]] = {
    "status": ("Auther's template", _TEXT, "deactivated_at"),
    "deactivated_at": ("Auther's template", _MOMENT, None),
    "deactivated_by": ("Auther's template", _TEXT, None),
    "deactivated_reason": ("Auther's template", _TEXT, None),
    "failed_login_attempts": ("Auther's template", re.compile(r"integer|smallint|bigint"), None),
    "locked_until": ("Auther's template", _MOMENT, None),
    "role_slugs": ("Auther's template", re.compile(r"(text|character varying(\(\d+\))?)\[\]"), None),
    "two_factor_enabled": ("the two-factor plugin", _BOOLEAN, None),
    "role": ("the admin plugin", _TEXT, "banned"),
    "banned": ("the admin plugin", _BOOLEAN, None),
    "ban_reason": ("the admin plugin", _TEXT, None),
    "ban_expires": ("the admin plugin", _MOMENT, None),
    "username": ("the username plugin", _TEXT, "display_username"),
    "display_username": ("the username plugin", _TEXT, None),
    "phone_number": ("the phone-number plugin", _TEXT, "phone_number_verified"),
    "phone_number_verified": ("the phone-number plugin", _BOOLEAN, None),
    "is_anonymous": ("the anonymous plugin", _BOOLEAN, None),
    "last_login_method": ("the last-login-method plugin", _TEXT, None),
}
"""Column of users that goes: who put it there, its type, and the neighbour without which only its name speaks for it.
A column of the name and another type is the app's own."""


@dataclass(frozen=True, slots=True)
class Role:
    """A table that plays a role, and why it was taken for it."""

    name: str
    table: Table
    reason: str


@dataclass(frozen=True, slots=True)
class GoingColumn:
    """A column that leaves users."""

    name: str
    reason: str
    by_name_only: bool


@dataclass(frozen=True, slots=True)
class Doubt:
    """What could not be decided; becomes a refusal."""

    code: str
    subject: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Who plays what."""

    kind: Literal["better-auth", "retired", "thin", "empty"]
    """`retired`: the tables that go have moved already; `thin`: the target is there; `empty`: no identity at all."""
    schema: str
    roles: tuple[Role, ...] = ()
    going_columns: tuple[GoingColumn, ...] = ()
    doubts: tuple[Doubt, ...] = ()

    def __getitem__(self, role: str) -> Table | None:
        return next((found.table for found in self.roles if found.name == role), None)

    @property
    def users(self) -> Table | None:
        return self[USERS]

    @property
    def going(self) -> tuple[Table, ...]:
        """The tables that go, in the order of the roles."""
        return tuple(role.table for role in self.roles if role.name != USERS)


@dataclass(frozen=True, slots=True)
class Choices:
    """What a person decided where the database cannot say."""

    tables: Mapping[str, str] = field(default_factory=dict)
    """Role to `schema.table`, from --map."""
    keep: frozenset[str] = frozenset()
    """`users.column` that stays though its name says it goes, from --keep."""


def normalised(name: str) -> str:
    """Return a column's or table's name in snake_case: `emailVerified`, `email_verified` -> `email_verified`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def spelled(table: Table, name: str) -> str | None:
    """Return how a table spells a column of Better Auth's, as SQL: `"userId"` or `user_id`; None if it has none."""
    return next((quoted(column.name) for column in table.columns if normalised(column.name) == name), None)


def recognise(snapshot: Snapshot, schema: str, choices: Choices, moved: Mapping[str, str] | None = None) -> Layout:
    """Return which tables of the snapshot play which role for a server that looks into `schema`.

    Args:
        snapshot: the catalogue.
        schema: where users is.
        choices: what a person decided.
        moved: after retire, role to the name that its table has in RETIRED_SCHEMA; a table of the same name elsewhere
            is then the app's own.
    """
    doubts: list[Doubt] = []
    users = _choose(snapshot, USERS, schema, choices, doubts, None)
    roles = [users] if users is not None else []
    if moved is not None:
        for role, name in moved.items():
            if (table := snapshot.table(RETIRED_SCHEMA, name)) is not None:
                roles.append(Role(role, table, "retired as such"))
        return Layout("retired", schema, tuple(roles), doubts=tuple(doubts))
    for role in GOING_ROLES:
        found = _choose(snapshot, role, schema, choices, doubts, users.table if users else None)
        if found is not None:
            roles.append(found)
    going = [role.table for role in roles if role.name != USERS]
    if users is None:
        return _without_users(snapshot, schema, tuple(roles), going, doubts)
    doubts += _unsupported(users.table, schema)
    if not snapshot.sees_all_rows:
        hidden = [table for table in (users.table, *going) if table.forced_row_security]
        doubts += [_hidden(table, snapshot.role) for table in hidden]
    columns = tuple(_going_columns(users.table, choices))
    return Layout("better-auth" if going or columns else "thin", schema, tuple(roles), columns, tuple(doubts))


def _without_users(
    snapshot: Snapshot, schema: str, roles: tuple[Role, ...], going: list[Table], doubts: list[Doubt]
) -> Layout:
    if not going:
        if (taken := snapshot.table(schema, USERS)) is not None:
            doubts.append(_taken(taken))
        return Layout("empty", schema, doubts=tuple(doubts))
    doubts.append(
        Doubt(
            "role-missing",
            quoted(schema, USERS),
            f"{', '.join(table.sql for table in going)} look like Better Auth's, but no table has the columns of "
            f"its users ({', '.join(sorted(SIGNATURES[USERS]))}).",
            f"shadow inspect --map users={schema}.your_table",
        )
    )
    return Layout("better-auth", schema, roles, doubts=tuple(doubts))


def _choose(
    snapshot: Snapshot, role: str, schema: str, choices: Choices, doubts: list[Doubt], users: Table | None
) -> Role | None:
    if (mapped := choices.tables.get(role)) is not None:
        return _mapped(snapshot, role, mapped, doubts)
    candidates = [
        table
        for table in snapshot.tables
        if table.kind in ("r", "p")
        and table.schema != RETIRED_SCHEMA
        and table.name not in OWN_TABLES
        and _names(table) >= SIGNATURES[role]
        and normalised(table.name) in _spellings(role)
        and (table.schema == schema or _refers(snapshot, table, users))
    ]
    if not candidates:
        return None
    if len(candidates) > 1:
        names = ", ".join(f"{table.schema}.{table.name}" for table in candidates)
        doubts.append(
            Doubt(
                "role-ambiguous",
                role,
                f"{len(candidates)} tables have the columns of Better Auth's {role}: {names}.",
                f"--map {role}={candidates[0].schema}.{candidates[0].name}",
            )
        )
        return None
    (table,) = candidates
    return Role(role, table, f"its name, and the columns {', '.join(sorted(SIGNATURES[role] - {'id'}))}")


def _mapped(snapshot: Snapshot, role: str, mapped: str, doubts: list[Doubt]) -> Role | None:
    table = next((table for table in snapshot.tables if f"{table.schema}.{table.name}" == mapped), None)
    missing = SIGNATURES[role] - _names(table) if table else SIGNATURES[role]
    if table is not None and not missing:
        return Role(role, table, "mapped by --map")
    what = f"has no column {', '.join(sorted(missing))}" if table else "does not exist"
    doubts.append(Doubt("role-missing", mapped, f"{mapped}, mapped to {role}, {what}.", "shadow inspect"))
    return None


def _refers(snapshot: Snapshot, table: Table, users: Table | None) -> bool:
    """Whether a table of another schema belongs to these users: two apps may share a database."""
    return users is not None and any(key.target == users.key for key in snapshot.keys_from(table.key))


def _names(table: Table) -> set[str]:
    return {normalised(column.name) for column in table.columns}


def _spellings(role: str) -> set[str]:
    singular = role.removesuffix("s")
    return {role, singular, f"{role}s"}


def _taken(table: Table) -> Doubt:
    return Doubt(
        "users-name-taken",
        table.sql,
        f"{table.sql} exists and is no users table of Better Auth's: it lacks "
        f"{', '.join(sorted(SIGNATURES[USERS] - _names(table)))}.",
        "Set DATABASE_SCHEMA to a schema in which the name users is free.",
    )


def _hidden(table: Table, role: str) -> Doubt:
    return Doubt(
        "row-security",
        table.sql,
        f"{table.sql} has FORCE ROW LEVEL SECURITY, so that {role} may not see all of its rows: they could neither be "
        "counted nor copied.",
        f"ALTER TABLE {table.sql} NO FORCE ROW LEVEL SECURITY;\n"
        f"-- or run this as a role with BYPASSRLS; afterwards, if it is to be forced again:\n"
        f"-- ALTER TABLE {table.sql} FORCE ROW LEVEL SECURITY;",
    )


def _unsupported(users: Table, schema: str) -> list[Doubt]:
    """Say what keeps a users table from being Auther's template layout, the only one that is migrated so far."""
    faults = []
    if (users.schema, users.name) != (schema, USERS):
        faults.append(f"it is {users.sql}, not {quoted(schema, USERS)}")
    for name in ("id", "name", "email", "email_verified", "created_at", "updated_at"):
        column = users.column(name)
        if column is None:
            faults.append(f"it has no column {name}")
        elif not _fits(name, column.type):
            faults.append(f"its column {name} is {column.type}")
        elif not column.not_null:
            faults.append(f"its column {name} may be null")
    for name in ("image", *ADDED_COLUMNS):
        column = users.column(name)
        if column is not None and not _fits(name, column.type):
            faults.append(f"its column {name} is {column.type}")
    if users.kind != "r":
        faults.append("it is partitioned")
    if not faults:
        return []
    return [
        Doubt(
            "layout-unsupported",
            users.sql,
            f"{users.sql} is not in the layout of Auther's template: {'; '.join(faults)}.",
            "This version migrates Auther's template layout (users, snake_case columns, text ids, time zones) only; "
            "nothing was changed." + _widening(users),
        )
    ]


def _widening(users: Table) -> str:
    """Say how a varchar becomes the text that is wanted: PostgreSQL only changes the catalogue for it."""
    columns = [users.column(name) for name in ("name", "email", "image")]
    narrow = [column.name for column in columns if column is not None and column.type.startswith("character varying")]
    return "".join(f"\nALTER TABLE {users.sql} ALTER COLUMN {name} TYPE text;" for name in narrow)


def _fits(name: str, actual: str) -> bool:
    wanted = TARGET_COLUMNS[name][0]
    if name == "id":
        return actual == "text" or (actual.startswith("character varying") and _room(actual) >= 255)
    return actual == wanted


def _room(type_: str) -> float:
    length = re.search(r"\((\d+)\)", type_)
    return float(length[1]) if length else float("inf")


def _going_columns(users: Table, choices: Choices) -> list[GoingColumn]:
    going = []
    for column in users.columns:
        known = GOING_COLUMNS.get(column.name)
        if known is None or f"users.{column.name}" in choices.keep or known[1].fullmatch(column.type) is None:
            continue
        origin, _, neighbour = known
        by_name = neighbour is not None and users.column(neighbour) is None
        going.append(GoingColumn(column.name, f"{origin} put it there", by_name))
    return going
