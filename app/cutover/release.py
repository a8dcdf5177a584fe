"""Objects that stand in the way, taken out and put back: views, functions, triggers, policies and their like.

The promise: pure. Each `drop` works without CASCADE in the order given, each `restore` in the reverse order, and what
is back then pg_dump cannot tell from what was. Two things it can: a generated column comes back as the last of its
table, and the columns of a table that inherits are from then on its own as well.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from app.cutover import restore
from app.cutover.catalog import Column, Dependent, Function, Grant, Snapshot, Table, quoted
from app.cutover.restore import grants

__all__ = ["Removal", "grants", "held", "named", "removals"]

_NAMELESS = re.compile(r'\.""(?!")')
_Statements = tuple[Iterable[str], Iterable[str]]
_Key = tuple[str, tuple[str, str] | None, str]


@dataclass(frozen=True, slots=True)
class Removal:
    """How one object goes, and how it comes back."""

    identity: str
    kind: str
    drop: tuple[str, ...]
    restore: tuple[str, ...]


def named(snapshot: Snapshot, identity: str) -> tuple[Dependent, ...]:
    """Return what a person means by an object's name, with or without its kind before it.

    Args:
        snapshot: the catalogue.
        identity: `public.active_users`, `view public.active_users`, `audit on public.users`, `public.f(text)`.
    """
    wanted = identity.strip().replace("pg_catalog.", "")

    def is_meant(found: Dependent) -> bool:
        name = found.identity.replace("pg_catalog.", "")
        return wanted in (name, f"{found.kind} {name}")

    callers = (found for function in snapshot.functions for found in function.dependents)
    functions = (_itself(function) for function in snapshot.functions)
    for known in (snapshot.dependents, callers, functions):
        if meant := tuple(found for found in known if is_meant(found)):
            return meant
    return ()


def removals(snapshot: Snapshot, wanted: Iterable[Dependent]) -> tuple[Removal, ...]:
    """Return how objects go, and before each whatever depends on it.

    One that cannot be taken out, or on which another depends that cannot, is left out: `held` says which.
    """
    return tuple(_Ways(snapshot).removals(wanted))


def held(snapshot: Snapshot, wanted: Iterable[Dependent]) -> tuple[Dependent, ...]:
    """Return those, of the wanted and all that depends on them, that cannot be taken out and put back.

    Either nothing puts them back as they were, or the role that looks may not.
    """
    ways = _Ways(snapshot)
    return tuple({_key(found): found for one in wanted for found in ways.held(ways.along(one))}.values())


def _key(found: Dependent) -> _Key:
    if found.kind in ("table", "foreign table"):
        return found.kind, found.owner, quoted(*found.table)
    return found.kind, found.owner, found.name or ("" if found.owner else found.identity)


def _itself(function: Function) -> Dependent:
    key = (function.schema, function.identity)
    return Dependent(function.kind, function.identity, function.identity, None, key, None, function.definition)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Part = TypeVar("_Part", bound=_Named)


def _part(parts: Iterable[_Part], found: Dependent, kind: str) -> _Part | None:
    return next((part for part in parts if found.kind == kind and part.name == found.name), None)


def _ordered(found: Iterable[Dependent], dependents: Callable[[Dependent], Iterable[Dependent]]) -> list[Dependent]:
    """Return objects and all that depends on them, each after whatever depends on it."""
    seen: set[_Key] = set()
    order: list[Dependent] = []

    def visit(one: Dependent) -> None:
        if _key(one) not in seen:
            seen.add(_key(one))
            for other in dependents(one):
                visit(other)
            order.append(one)

    for one in found:
        visit(one)
    return order


@dataclass(slots=True)
class _Ways:
    """The ways from an object to all that depends on it."""

    snapshot: Snapshot
    tables: dict[tuple[str, str], Table] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    on: dict[tuple[str, str], list[Dependent]] = field(default_factory=dict)
    """By what they depend on: a relation's key, or the schema and identity of a function."""
    defaults: dict[tuple[str, str], dict[str, Dependent]] = field(default_factory=dict)
    """By relation and column, those that depend on something."""
    read: dict[tuple[str, str], set[tuple[str, str]]] = field(default_factory=dict)
    """What a view reads."""

    def __post_init__(self) -> None:
        self.tables = {table.key: table for table in self.snapshot.tables}
        self.functions = {function.identity: function for function in self.snapshot.functions}
        callers = (found for function in self.snapshot.functions for found in function.dependents)
        for found in (*self.snapshot.dependents, *callers):
            self.on.setdefault(found.table, []).append(found)
            if found.owner is not None and found.kind == "default value" and found.name is not None:
                self.defaults.setdefault(found.owner, {})[found.name] = found
            if found.owner is not None and found.kind in ("view", "materialized view"):
                self.read.setdefault(found.owner, set()).add(found.table)

    def removals(self, wanted: Iterable[Dependent], but: Collection[_Key] = ()) -> Iterator[Removal]:
        going: dict[_Key, Dependent] = {}
        for found in wanted:
            along = self.along(found)
            if not any(self.held(along)):
                going |= {_key(one): one for one in along if _key(one) not in but}

        def above(found: Dependent) -> Iterator[Dependent]:
            yield from (one for one in self.dependents(found) if _key(one) in going)
            # those come back to a generated column, not before it
            yield from (one for one in self.aside(found) if _key(one) in going)

        # columns that are added again stand in their order if they went in the reverse
        for found in _ordered(sorted(going.values(), key=lambda one: -self.position(one)), above):
            if (statements := self.statements(found, {*going, *but})) is not None:
                drop, back = statements
                yield Removal(found.identity, found.kind, tuple(drop), tuple(back))

    def along(self, found: Dependent) -> list[Dependent]:
        """Return an object and all that depends on it, each after whatever depends on it."""
        return _ordered((found,), self.dependents)

    def aside(self, found: Dependent) -> list[Dependent]:
        """Return all that steps aside while a column with values is dropped and added again."""
        column = self.generated(found)
        added = found.kind == "table column" or (column is not None and column.generated == "s")
        return _ordered(self.readers(found), self.dependents) if added else []

    def held(self, along: Iterable[Dependent]) -> Iterator[Dependent]:
        """Yield those that have no statements, or depend on one another in a circle."""
        before: set[_Key] = set()
        for found in along:
            before.add(_key(found))
            if any(_key(one) not in before for one in self.dependents(found)) or not self.statements(found):
                yield found

    def dependents(self, found: Dependent) -> Iterator[Dependent]:
        """Yield what goes before an object can."""
        if found.kind in ("view", "materialized view") and found.owner is not None:
            yield from self.on.get(found.owner, ())
            yield from self.defaults.get(found.owner, {}).values()
        elif found.kind in ("function", "procedure") and found.name in self.functions:
            yield from self.on.get((self.functions[found.name].schema, found.name), ())
        elif (column := self.generated(found)) and column.generated == "v":
            yield from self.readers(found)

    def readers(self, found: Dependent) -> list[Dependent]:
        """Return what depends on the column whose default value this is."""
        return [one for one in self.on.get(found.owner or found.table, ()) if one.column == found.name]

    def generated(self, found: Dependent) -> Column | None:
        """Return the generated column whose expression this is."""
        table = self.tables.get(found.owner) if found.owner and found.kind == "default value" else None
        column = table.column(found.name or "") if table else None
        return column if column and column.generated else None

    def position(self, found: Dependent) -> int:
        table, column = self.tables.get(found.owner or found.table), self.generated(found)
        return table.columns.index(column) if table and column else -1

    def statements(self, found: Dependent, gone: Collection[_Key] = ()) -> _Statements | None:
        """Return what takes an object out, and what puts it back; None where nothing can.

        Args:
            found: the object.
            gone: all that is taken out together with it.
        """
        if found.kind in ("function", "procedure"):
            function = self.functions.get(found.name or "")
            if function is None or not self.may_make(function.schema, function.owned, function.grants):
                return None
            # PostgreSQL writes a nameless parameter so in a body where others have names, and does not read it again
            if _NAMELESS.search(function.definition):
                return None
            made = restore.function(function, self.snapshot.default_grantees)
            return (f"DROP {found.kind.upper()} {function.identity}",), made
        if found.kind == "index":
            return self.index(found)
        table = self.tables.get(found.owner) if found.owner else None
        if table is None or not table.owned:
            return None
        if found.kind in ("view", "materialized view"):
            given = itertools.chain(table.grants or (), *(column.grants or () for column in table.columns))
            if not self.may_make(table.schema, table.owned, given):
                return None
            return (f"DROP {found.kind.upper()} {table.sql}",), self.relation(table)
        if found.kind in ("table", "foreign table"):
            change, parent = f"ALTER TABLE {table.sql}", quoted(*found.table)
            is_child = found.table in table.parents and table.partition_bound is None
            return ((f"{change} NO INHERIT {parent}",), (f"{change} INHERIT {parent}",)) if is_child else None
        if found.kind == "default value":
            return self.default(table, found, gone)
        if found.kind == "table column":
            return self.formerly_generated(table, found, gone)
        return self.part(table, found)

    def index(self, found: Dependent) -> _Statements | None:
        for table in self.tables.values():
            for index in table.indexes:
                if (table.schema, index.name) == found.owner and table.owned:
                    return (f"DROP INDEX {quoted(table.schema, index.name)}",), restore.index(table, index)
        return None

    def may_make(self, schema: str, owned: bool, given: Iterable[Grant] | None = None) -> bool:
        """Whether the role that looks may drop an object, and make it again with the grants that others gave."""
        roles = {grant.grantor for grant in given or () if grant.grantor is not None}
        return owned and schema in self.snapshot.creatable_schemas and roles <= set(self.snapshot.roles)

    def relation(self, table: Table) -> Iterator[str]:
        others = self.snapshot.default_grantees
        if table.kind == "v":
            return restore.view(table, others, but=self.defaults.get(table.key, ()))
        below = self.below(table)
        # it cannot be filled from one that holds no rows, nor where a policy that hides rows would be an error
        populated = table.populated and all(each.populated for each in below)
        secured = any(each.row_security for each in below)
        return restore.materialized_view(table, others, populated, secured)

    def below(self, view: Table) -> list[Table]:
        """Return what a view reads, itself or through others."""
        keys, known = [view.key], {view.key}
        while keys:
            new = self.read.get(keys.pop(), set()) - known
            known |= new
            keys += new
        return [self.tables[key] for key in sorted(known - {view.key}) if key in self.tables]

    def default(self, table: Table, found: Dependent, gone: Collection[_Key]) -> _Statements | None:
        """A default is dropped and set; a generated column can only be added again."""
        column = table.column(found.name or "")
        if column is None:
            return None
        change = f"ALTER TABLE {table.sql} ALTER COLUMN {quoted(column.name)}"
        if not column.generated:
            return (f"{change} DROP DEFAULT",), (f"{change} SET DEFAULT {column.default}",)
        if any(column.name in key.target_columns for key in self.snapshot.keys_to(table.key)):
            return None
        dropped = f"ALTER TABLE {table.sql} DROP COLUMN {quoted(column.name)}"
        if column.generated == "v":
            later = {
                other.name
                for other in table.columns[table.columns.index(column) + 1 :]
                if other.generated == "v" and ("default value", table.key, other.name) in gone
            }
            return (dropped,), self.again(table, column, later)
        # the column stays, with its values, until it is computed again; then its readers step aside for a moment
        if (aside := self.stepping(found, gone)) is None:
            return None
        kept = self.between(aside, self.copied(table, column)) if self.clings(found) else (f"{change} DROP EXPRESSION",)
        return kept, self.between(aside, (dropped, *self.again(table, column)))

    def formerly_generated(self, table: Table, found: Dependent, gone: Collection[_Key]) -> _Statements | None:
        """A column that was generated before PostgreSQL 15, and still goes with what its expression called."""
        column, aside = table.column(found.name or ""), self.stepping(found, gone)
        # one that has a row type has it for good
        if column is None or aside is None or column.identity or not self.clings(found):
            return None
        if column.base_kind == "c" or column.type.removesuffix("[]") == quoted(*found.table):
            return None
        if any(column.name in key.target_columns for key in self.snapshot.keys_to(table.key)):
            return None
        return self.between(aside, self.copied(table, column)), ()

    def clings(self, found: Dependent) -> bool:
        """Whether a column would go, unsaid, with what its expression calls, and even without the expression.

        Before PostgreSQL 15 it depends on that itself, and DROP EXPRESSION forgets only what it reads in its own table.
        """
        called = (one for some in self.on.values() for one in some if _key(one) == _key(found))
        return self.snapshot.version < 150000 and any(one.table != found.owner for one in called)

    def stepping(self, found: Dependent, gone: Collection[_Key]) -> list[Removal] | None:
        """Return how all steps aside that reads a column; None where something cannot."""
        stepping = self.aside(found)
        if any(self.generated(one) for one in stepping) or any(self.held(stepping)):
            return None
        return list(self.removals(stepping, {_key(found), *gone}))

    @staticmethod
    def between(aside: Sequence[Removal], statements: Iterable[str]) -> tuple[str, ...]:
        """Return statements between those by which others step aside and come back."""
        return (
            *(statement for removal in aside for statement in removal.drop),
            *statements,
            *(statement for removal in reversed(aside) for statement in removal.restore),
        )

    def copied(self, table: Table, column: Column) -> Iterator[str]:
        """Yield what puts a plain column with the same values in a column's place, and all that was over it."""
        change, name, copy = f"ALTER TABLE {table.sql}", quoted(column.name), quoted(f"copy of {column.name}")
        collation = f" COLLATE {column.collation}" if column.collation else ""
        yield f"{change} ADD COLUMN {copy} {column.type}{collation}"
        # an UPDATE would set off triggers
        yield f"{change} ALTER COLUMN {copy} TYPE {column.type}{collation} USING {name}"
        yield f"{change} DROP COLUMN {name}"
        yield f"{change} RENAME COLUMN {copy} TO {name}"
        if column.not_null:
            yield f"{change} ALTER COLUMN {name} SET NOT NULL"
        if column.default is not None and not column.generated:
            yield f"{change} ALTER COLUMN {name} SET DEFAULT {column.default}"
        yield from self.over(table, column)

    def again(self, table: Table, column: Column, later: Collection[str] = ()) -> Iterator[str]:
        """Yield what adds a generated column again, and all that went with it unsaid, but for what is over `later`."""
        named = any(found.kind == "n" and column.name in found.columns for found in table.constraints)
        yield (
            f"ALTER TABLE {table.sql} ADD COLUMN {quoted(column.name)} {column.type}"
            f"{f' COLLATE {column.collation}' if column.collation else ''} GENERATED ALWAYS AS ({column.default}) "
            f"{'VIRTUAL' if column.generated == 'v' else 'STORED'}{' NOT NULL' * (column.not_null and not named)}"
        )
        yield from self.over(table, column, later)

    def over(self, table: Table, column: Column, later: Collection[str] = ()) -> Iterator[str]:
        """Yield what adds all that goes unsaid with a column, but for what is over `later` too."""
        # a key may need that nothing is null
        for found in sorted(table.constraints, key=lambda one: one.kind != "n"):
            if column.name in found.columns and not set(later) & set(found.columns):
                yield from restore.constraint(table, found)
        for each in table.indexes:
            if column.name in each.columns and not set(later) & set(each.columns):
                yield from restore.index(table, each)
        for key in self.snapshot.keys_from(table.key):
            if column.name in key.columns:
                yield from restore.foreign_key(key)
        yield from restore.column(table, column)

    def part(self, table: Table, found: Dependent) -> _Statements | None:
        """Return what takes out, and what puts back, a part of a table that has a name."""
        name, on = quoted(found.name or ""), f"ON {table.sql}"
        if (trigger := _part(table.triggers, found, "trigger")) and not trigger.inherited:
            return (f"DROP TRIGGER {name} {on}",), restore.trigger(table, trigger)
        if rule := _part(table.rules, found, "rule"):
            return (f"DROP RULE {name} {on}",), restore.rule(table, rule)
        if policy := _part(table.policies, found, "policy"):
            return (f"DROP POLICY {name} {on}",), restore.policy(table, policy)
        if constraint := _part(table.constraints, found, "table constraint"):
            return (f"ALTER TABLE {table.sql} DROP CONSTRAINT {name}",), restore.constraint(table, constraint)
        if statistics := _part(table.statistics, found, "statistics object"):
            if not self.may_make(statistics.schema, statistics.owned):
                return None
            return (f"DROP STATISTICS {quoted(statistics.schema, statistics.name)}",), restore.statistics(statistics)
        if (membership := _part(table.memberships, found, "publication relation")) and membership.owned:
            return (f"ALTER PUBLICATION {name} DROP TABLE ONLY {table.sql}",), restore.membership(table, membership)
        return None
