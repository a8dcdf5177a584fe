"""The layout: which table plays which role of Better Auth's schema, what goes, and what a person decided about it.

The promise: values alone; `recognition.py` finds them, everything else goes by them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from app.cutover.catalog import Column, Snapshot, Table, quoted
from app.cutover.signatures import SIGNATURES, USERS

RETIRED_SCHEMA = "retired_auth"
KEPT_COLUMNS = "users_columns"
"""Table in RETIRED_SCHEMA with the values of the columns that left users, by id."""
DEFAULT_SCHEMA = "public"
NONE = "none"
"""What --map takes for a role that no table plays."""
BESIDE_COMMENT = (
    "The users table as the server will have it, over the old app's. Made by 0001_adopt, goes with 0002_retire."
)
"""By which the view of adopt is known."""


def retired_comment(schema: str) -> str:
    """Return the comment by which the schema of retired tables is known for that of one app."""
    return f"What 0002_retire took out, for DATABASE_SCHEMA={schema}. Goes with 0003_drop, or back with shadow undo."


def is_retired_for(snapshot: Snapshot) -> str | None:
    """Return the comment of the schema of retired tables where the cutover made it, None where it did not."""
    comment = dict(snapshot.schema_comments).get(RETIRED_SCHEMA)
    return comment if comment is not None and comment.startswith(retired_comment("").partition("=")[0]) else None


@dataclass(frozen=True, slots=True)
class Role:
    """A table that plays a role, and why it was taken for it."""

    name: str
    table: Table
    reason: str
    fields: Mapping[str, str] = field(default_factory=dict)
    """Better Auth's column, in snake_case, to the table's own, where it is known."""

    def spelled(self, name: str) -> str | None:
        """Return a column of Better Auth's as SQL; None if the table has none that is known."""
        return quoted(self.fields[name]) if name in self.fields else None


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
    fields: Mapping[str, Column] = field(default_factory=dict)
    """Column of the target to the column of users that becomes it, where there is one."""
    going_columns: tuple[GoingColumn, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Of each of the `fields`, why it was taken for it."""
    kept_sequence: str | None = None
    """After retire, the sequence that made ids, as SQL."""

    def __getitem__(self, role: str) -> Table | None:
        found = self.role(role)
        return found.table if found else None

    def role(self, name: str) -> Role | None:
        return next((found for found in self.roles if found.name == name), None)

    @property
    def version(self) -> str | None:
        """Which Better Auth made the tables, as far as their columns tell; None where they do not."""
        jwks, two_factors, sessions = (self.role(name) for name in ("jwks", "two_factors", "sessions"))
        if (jwks and {"alg", "crv"} & jwks.fields.keys()) or (two_factors and "verified" in two_factors.fields):
            return "1.7 or newer"
        indexed = {column for index in sessions.table.indexes for column in index.columns} if sessions else set()
        if (jwks and "expires_at" in jwks.fields) or (sessions and sessions.fields.get("user_id") in indexed):
            return "1.4 or newer"
        return "1.3 or older" if jwks or two_factors else None

    @property
    def users(self) -> Table | None:
        return self[USERS]

    @property
    def going(self) -> tuple[Table, ...]:
        """The tables that go, in the order of the roles."""
        return tuple(role.table for role in self.roles if SIGNATURES[role.name].fate == "goes")


@dataclass(frozen=True, slots=True)
class Choices:
    """What a person decided where the database cannot say."""

    tables: Mapping[str, str] = field(default_factory=dict)
    """Role to `schema.table`, or to `none`, from --map."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """`users.email` to a column of that table, from --map."""
    keep: frozenset[str] = frozenset()
    """`users.column` that stays though its name says it goes, from --keep."""

    def without(self, roles: Iterable[str]) -> Choices:
        """Return the choices where no table plays any of some roles."""
        return replace(self, tables={**self.tables, **dict.fromkeys(roles, NONE)})


def is_beside(table: Table) -> bool:
    """Whether it is the view that adopt made."""
    return table.kind == "v" and table.comment == BESIDE_COMMENT


def without_beside(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot without the view that adopt made: it comes and goes by steps of its own."""
    views = {table.key for table in snapshot.tables if is_beside(table)}
    return replace(
        snapshot,
        tables=tuple(table for table in snapshot.tables if table.key not in views),
        dependents=tuple(found for found in snapshot.dependents if found.owner not in views),
    )
