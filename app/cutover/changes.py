"""What becomes of what: the tables that move, the columns that go, get another name, another type or a value.

The promise: pure, and the only place that decides it. The rules of `checks.py` look for what stands in the way of
these changes, the steps of `plan.py` make them, `verify.py` looks for the names they give.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from app.cutover import shapes
from app.cutover.catalog import Column, Dependent, ForeignKey, Snapshot, Table, quoted
from app.cutover.layout import KEPT_COLUMNS, Layout, without_beside
from app.cutover.objects import Sequence
from app.cutover.signatures import TARGET_COLUMNS, USERS

RATE_LIMIT_ROWS = "rate_limit_rows"
"""Table in RETIRED_SCHEMA with the rows of rate_limit that were about sessions."""
DEAD_ROWS = "session:%"
"""What the keys of those rows are like."""

Key = tuple[str, str]
"""Schema and name of a table."""


@dataclass(frozen=True, slots=True)
class Move:
    """A table that goes, and what it is called in RETIRED_SCHEMA."""

    table: Table
    name: str


@dataclass(frozen=True, slots=True)
class Retype:
    """A column that gets another type."""

    table: Table
    column: Column
    type: str
    rewrites: bool
    """Whether every row is written anew, and not the catalogue alone."""

    @property
    def using(self) -> str:
        """What follows TYPE."""
        return f"{self.type} USING {quoted(self.column.name)}::{self.type}" if self.rewrites else self.type


@dataclass(frozen=True, slots=True)
class Fill:
    """A column of users that may be null, and may not be in the target: what stands for null."""

    name: str
    """In the target."""
    column: Column
    value: str
    """SQL over the row, with the names it has before."""

    @property
    def mark(self) -> str:
        """The column of KEPT_COLUMNS that says where there was nothing."""
        return f"{self.column.name}_was_null"


@dataclass(frozen=True)
class Changes:
    """Everything that retire changes, with the names that things have before."""

    users: Table
    schema: str
    """Where users is to be."""
    fields: Mapping[str, Column]
    moves: tuple[Move, ...] = ()
    going: tuple[Column, ...] = ()
    retypes: tuple[Retype, ...] = ()
    fills: tuple[Fill, ...] = ()
    keys: tuple[ForeignKey, ...] = ()
    """Foreign keys that cannot stand while their columns change type; they are dropped and added again."""
    carried: tuple[Dependent, ...] = ()
    """Objects over columns that change type: PostgreSQL wants them out of the way for that moment."""
    sequence: Sequence | None = None
    """The one that makes ids, which the provider makes from now on."""
    rate_limits: Table | None = None
    rate_limit_key: Column | None = None

    @cached_property
    def renames(self) -> tuple[tuple[str, str], ...]:
        """Columns of users, before and after."""
        return tuple((column.name, name) for name, column in self.fields.items() if column.name != name)

    @property
    def moves_users(self) -> bool:
        """Whether the table itself gets another name or schema."""
        return self.users.key != (self.schema, USERS)

    def owner_but(self, role: str) -> str | None:
        """Return the owner of users; None where that is `role`."""
        return self.users.owner if self.users.owner != role else None

    @property
    def beside(self) -> bool:
        """Whether the server needs a view to run beside the old app, and can."""
        return self.renamed and shapes.is_text(self.fields["id"])

    @property
    def renamed(self) -> bool:
        return bool(self.renames) or self.moves_users

    @property
    def rewritten(self) -> bool:
        """Whether ids change their type for good, so that no view could serve both apps."""
        return not shapes.is_text(self.fields["id"])

    @property
    def required(self) -> tuple[tuple[str, Column], ...]:
        """Columns that may not be null in the target, and may be before."""
        return tuple(
            (name, column)
            for name, column in self.fields.items()
            if "NOT NULL" in TARGET_COLUMNS[name][1] and not column.not_null
        )

    @property
    def defaults(self) -> tuple[tuple[str, Column, str], ...]:
        """Columns that get a default: name, column, expression."""
        wanted = (("email_verified", "false"), ("created_at", "now()"), ("updated_at", "now()"))
        return tuple(
            (name, self.fields[name], default)
            for name, default in wanted
            if name in self.fields and self.fields[name].default is None
        )

    @property
    def any(self) -> bool:
        """Whether retire has anything to do."""
        loses_default = self.fields["id"].default is not None or self.fields["id"].identity
        return bool(
            self.moves
            or self.going
            or self.retypes
            or self.renamed
            or self.required
            or loses_default
            or self.rate_limits
        )

    def retyped(self, table: Key, column: str) -> Retype | None:
        return next((each for each in self.retypes if each.table.key == table and each.column.name == column), None)

    @property
    def touched(self) -> tuple[Table, ...]:
        """Every table that is altered, users first: the order in which they are locked."""
        found: dict[Key, Table] = {self.users.key: self.users}
        for table in (*(move.table for move in self.moves), *(each.table for each in self.retypes)):
            found.setdefault(table.key, table)
        return tuple(found.values())


def of(snapshot: Snapshot, layout: Layout) -> Changes | None:
    """Return what retire changes; None where there is no users table or the layout is in doubt."""
    users = layout.users
    if users is None or "id" not in layout.fields or layout.kind == "retired":
        return None
    snapshot = without_beside(snapshot)
    going_names = {column.name for column in layout.going_columns}
    moves = tuple(_moves(snapshot, layout))
    retypes = _retypes(snapshot, layout, {move.table.key for move in moves})
    going = tuple(column for column in users.columns if column.name in going_names)
    retypes = tuple(each for each in retypes if each.table.key != users.key or each.column.name not in going_names)
    limits = layout.role("rate_limits")
    key = limits.table.column(limits.fields.get("key", "")) if limits else None
    return Changes(
        users=users,
        schema=layout.schema,
        fields=layout.fields,
        moves=moves,
        going=going,
        retypes=retypes,
        fills=tuple(_fills(layout)),
        keys=tuple(_keys(snapshot, retypes, {move.table.key for move in moves})),
        carried=tuple(_carried(snapshot, retypes, {move.table.key for move in moves})),
        sequence=_sequence(snapshot, users, layout.fields["id"]),
        rate_limits=limits.table if limits and key else None,
        rate_limit_key=key,
    )


def _moves(snapshot: Snapshot, layout: Layout) -> Iterable[Move]:
    names: set[str] = {KEPT_COLUMNS, RATE_LIMIT_ROWS}
    for table in with_partitions(snapshot, layout.going):
        name = table.name if table.name not in names else f"{table.schema}_{table.name}"
        names.add(name)
        yield Move(table, name)


def with_partitions(snapshot: Snapshot, tables: Iterable[Table]) -> Iterable[Table]:
    """Return tables and, each after its whole, their partitions."""
    for table in tables:
        yield table
        if table.kind == "p":
            yield from with_partitions(snapshot, (child for child in snapshot.tables if table.key in child.parents))


def _retypes(snapshot: Snapshot, layout: Layout, moving: set[Key]) -> tuple[Retype, ...]:
    users = layout.users
    if users is None:
        return ()
    found: dict[tuple[Key, str], Retype] = {}
    for name, column in layout.fields.items():
        wanted = TARGET_COLUMNS[name][0]
        if name == "id":
            text = shapes.is_text(column)
            if not shapes.is_wide_key(column):
                found[users.key, column.name] = Retype(users, column, wanted, not text or _pads(column))
            for table, own in _referring(snapshot, users, column, moving):
                if not shapes.is_wide_key(own):
                    found[table.key, own.name] = Retype(table, own, wanted, not shapes.is_text(own) or _pads(own))
        elif column.type != wanted:
            found[users.key, column.name] = Retype(users, column, wanted, _pads(column))
            if name == "email":
                for table, own in _referring(snapshot, users, column, moving):
                    if own.type != wanted:
                        found[table.key, own.name] = Retype(table, own, wanted, _pads(own))
    return tuple(sorted(found.values(), key=lambda each: (each.table.key != users.key, each.table.key)))


def _pads(column: Column) -> bool:
    """Whether a type is stored in another way than text and varchar are: `character(n)` with its blanks."""
    return column.type.startswith("character(") or column.type == "character"


def _referring(snapshot: Snapshot, users: Table, column: Column, moving: set[Key]) -> tuple[tuple[Table, Column], ...]:
    """Return every column that refers to a column of users, or to a column that does; the topmost of inherited ones."""
    reached: set[tuple[Key, str]] = {(users.key, column.name)}
    waiting = [(users.key, column.name)]
    while waiting:
        target = waiting.pop()
        for key in snapshot.keys_to(target[0]):
            if key.table in moving:
                continue
            for own, referred in zip(key.columns, key.target_columns, strict=True):
                if referred == target[1]:
                    for source in _family(snapshot, key.table, own):
                        if source not in reached:
                            reached.add(source)
                            waiting.append(source)
    found = []
    for table_key, name in sorted(reached - {(users.key, column.name)}):
        table = snapshot.table(*table_key)
        own_column = table.column(name) if table else None
        inherited = table is not None and any((parent, name) in reached for parent in table.parents)
        if table is not None and own_column is not None and not inherited:
            found.append((table, own_column))
    return tuple(found)


def _family(snapshot: Snapshot, table: Key, column: str) -> set[tuple[Key, str]]:
    """Return a column with those that inherit it and those it is inherited from: they change type together."""
    found, waiting = {(table, column)}, [table]
    while waiting:
        name = waiting.pop()
        here = snapshot.table(*name)
        above = list(here.parents) if here else []
        below = [child.key for child in snapshot.tables if name in child.parents]
        for other in (*above, *below):
            there = snapshot.table(*other)
            if there is not None and there.column(column) is not None and (other, column) not in found:
                found.add((other, column))
                waiting.append(other)
    return found


def _fills(layout: Layout) -> Iterable[Fill]:
    fields = layout.fields

    def own(name: str) -> str:
        return quoted(fields[name].name) if name in fields else "NULL"

    values = {
        "name": "''",
        "email_verified": "false",
        "created_at": f"coalesce({own('updated_at')}, now())",
        "updated_at": f"coalesce({own('created_at')}, now())",
    }
    for name, value in values.items():
        column = fields.get(name)
        if column is not None and not column.not_null:
            yield Fill(name, column, value)


def _keys(snapshot: Snapshot, retypes: tuple[Retype, ...], moving: set[Key]) -> Iterable[ForeignKey]:
    """The keys that cannot stay meanwhile, those of partitions before their parents'.

    They are over columns of which all rows are written anew; or what they refer to has an index that merely includes
    such a column, which PostgreSQL makes anew without asking who rests on it.
    """
    every = {(each.table.key, each.column.name) for each in retypes}
    every |= {member for table, column in every for member in _family(snapshot, table, column)}
    written = {(each.table.key, each.column.name) for each in retypes if each.rewrites}
    written |= {member for table, column in written for member in _family(snapshot, table, column)}
    found = [
        key
        for key in snapshot.foreign_keys
        if key.table not in moving
        and key.target not in moving
        and not comes_along(snapshot, key)
        and (
            any((key.table, own) in written for own in key.columns)
            or any((key.target, name) in every for name in set(key.rests_on) - set(key.target_columns))
        )
    ]
    return sorted(found, key=lambda key: (-depth(snapshot, key.table), key.table, key.name))


def comes_along(snapshot: Snapshot, key: ForeignKey) -> bool:
    """Whether PostgreSQL made a key for a partition of what another refers to: it goes and comes back with that.

    Its name is PostgreSQL's, and another each time.
    """
    table = snapshot.table(*key.table)
    above = snapshot.keys_from(*(table.parents if table is not None else ()))
    return key.inherited and not any((each.target, each.columns) == (key.target, key.columns) for each in above)


def children(snapshot: Snapshot, table: Table) -> Iterable[Table]:
    """Return the tables that inherit from one, and those that inherit from them."""
    for child in snapshot.tables:
        if table.key in child.parents:
            yield child
            yield from children(snapshot, child)


def depth(snapshot: Snapshot, table: Key) -> int:
    """Return how many tables are above one that is a part of them."""
    here = snapshot.table(*table)
    return 1 + max(depth(snapshot, parent) for parent in here.parents) if here is not None and here.parents else 0


def _carried(snapshot: Snapshot, retypes: tuple[Retype, ...], moving: set[Key]) -> Iterable[Dependent]:
    changed = {(each.table.key, each.column.name) for each in retypes}
    changed |= {member for table, column in changed for member in _family(snapshot, table, column)}
    seen: set[tuple[str, str]] = set()
    for found in snapshot.dependents:
        concerned = (found.table, found.column) in changed or _stores_rows(snapshot, found, {key for key, _ in changed})
        if not concerned or found.owner in moving or found.kind in _FOLLOWING:
            continue
        if found.kind == "default value" or (found.kind, found.identity) in seen:
            continue
        seen.add((found.kind, found.identity))
        yield found


def _stores_rows(snapshot: Snapshot, found: Dependent, changed: set[Key]) -> bool:
    """Whether a materialized view holds whole rows, of a row type that PostgreSQL then does not change."""
    view = snapshot.table(*found.owner) if found.kind == "materialized view" and found.owner else None
    of_rows = {quoted(*found.table), f"{quoted(*found.table)}[]"}
    return found.table in changed and view is not None and any(each.type in of_rows for each in view.columns)


_FOLLOWING = frozenset({"statistics object", "table constraint", "index", "table"})
"""What PostgreSQL makes anew by itself when a column's type changes."""


def _sequence(snapshot: Snapshot, users: Table, column: Column) -> Sequence | None:
    return next((each for each in snapshot.sequences if each.owned_by == (users.key, column.name)), None)
