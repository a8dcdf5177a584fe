"""The catalogue as a value: what PostgreSQL knows of a database's tables, read once into a frozen `Snapshot`.

The promise: everything that is decided later is decided from a Snapshot, and two Snapshots with one fingerprint
describe the same tables. Definitions are PostgreSQL's own text (pg_get_constraintdef and its kin) with every name
qualified, so that they can be run again as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any

from sqlalchemy import Connection

from app.cutover import definitions, queries
from app.cutover.objects import (
    Column,
    Constraint,
    Dependent,
    ForeignKey,
    Function,
    Grant,
    Index,
    Membership,
    Policy,
    Rule,
    Sequence,
    Statistics,
    Table,
    Trigger,
    literal,
    quoted,
)

__all__ = [
    "Column",
    "Constraint",
    "Dependent",
    "ForeignKey",
    "Function",
    "Grant",
    "Index",
    "Membership",
    "Policy",
    "Rule",
    "Sequence",
    "Snapshot",
    "Statistics",
    "Table",
    "Trigger",
    "literal",
    "quoted",
    "read",
]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The tables of a database at one moment, as the role that looked saw them."""

    database: str
    version: int = field(compare=False)
    """server_version_num"""
    role: str
    sees_all_rows: bool
    """Superuser or BYPASSRLS: no row security policy hides rows from the role."""
    may_create_schema: bool
    schemas: tuple[str, ...]
    creatable_schemas: tuple[str, ...]
    """Schemas in which the role may create."""
    tables: tuple[Table, ...]
    foreign_keys: tuple[ForeignKey, ...]
    dependents: tuple[Dependent, ...] = ()
    functions: tuple[Function, ...] = ()
    sequences: tuple[Sequence, ...] = ()
    default_grantees: tuple[str, ...] = ()
    """Roles, as SQL, to which ALTER DEFAULT PRIVILEGES grants something on new tables, sequences or functions."""
    roles: tuple[str, ...] = field(default=(), compare=False)
    """Those, as SQL, that the role that looked may become."""
    superuser: bool = field(default=False, compare=False)
    """Whether the role that looked is one."""
    superusers: tuple[str, ...] = field(default=(), compare=False)
    """All of them."""
    creating_owners: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """Owners of tables and the schemas in which they may create."""
    schema_comments: tuple[tuple[str, str], ...] = ()
    schema_users: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """Schemas and the roles, as SQL, that were given USAGE of each."""
    types: tuple[tuple[str, str, str], ...] = field(default=(), compare=False)
    """Those that are no relation's: TYPE or DOMAIN, schema, name."""

    def table(self, schema: str, name: str) -> Table | None:
        return next((table for table in self.tables if table.key == (schema, name)), None)

    def sees(self, table: Table) -> bool:
        """Whether the role may read all rows of a table: none that a policy hides."""
        hides = table.row_security and not self.sees_all_rows and (table.forced_row_security or not table.owned)
        return table.readable and not hides

    def rows_of(self, key: ForeignKey) -> str:
        """Return what a foreign key holds for, as SQL: all partitions of a table, but none that inherit from it."""
        table = self.table(*key.table)
        return quoted(*key.table) if table is not None and table.kind == "p" else f"ONLY {quoted(*key.table)}"

    def keys_from(self, *tables: tuple[str, str]) -> Iterator[ForeignKey]:
        return (key for key in self.foreign_keys if key.table in tables)

    def keys_to(self, *tables: tuple[str, str]) -> Iterator[ForeignKey]:
        return (key for key in self.foreign_keys if key.target in tables)

    @property
    def fingerprint(self) -> str:
        """A hash of the structure: numbers that move and our own tables do not count."""
        structure = {
            **_compared(self),
            # the order of columns does not count: a column that left and came back stands last
            "tables": [
                replace(
                    table,
                    columns=tuple(sorted(table.columns, key=lambda column: column.name)),
                    constraints=tuple(_apart_from_given_names(table)),
                    statistics=tuple(replace(each, definition=_in_order(each.definition)) for each in table.statistics),
                )
                for table in self.tables
                if table.name not in OWN_TABLES
            ],
            "dependents": [
                replace(found, definition=_in_order(found.definition or ""))
                for found in self.dependents
                if found.table[1] not in OWN_TABLES
            ],
            "sequences": [
                found for found in self.sequences if found.owned_by is None or found.owned_by[0][1] not in OWN_TABLES
            ],
        }
        return hashlib.sha256(json.dumps(structure, default=_compared).encode()).hexdigest()[:16]


def _in_order(definition: str) -> str:
    """Return the definition of a statistics object with its columns in the order of their names, not of the table."""
    found = re.fullmatch(r"(CREATE STATISTICS .* ON )(.*)( FROM .*)", definition)
    return f"{found[1]}{', '.join(sorted(found[2].split(', ')))}{found[3]}" if found else definition


def _apart_from_given_names(table: Table) -> Iterator[Constraint]:
    """Yield a table's constraints; PostgreSQL 18 renames a partition's not-null one when its column changes type."""
    for constraint in table.constraints:
        yield replace(constraint, name="") if constraint.kind == "n" and table.parents else constraint


def _compared(value: Any) -> dict[str, Any]:
    """Return the fields of a value by which it is compared."""
    return {name: getattr(value, name) for name in _compared_names(value.__class__)}


@cache
def _compared_names(kind: type[Any]) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind) if each.compare)


VERSION_TABLE = "shadow_alembic_version"
JOURNAL = "shadow_cutover"
EVENTS = "shadow_events"
STANDING = "shadow_standing"
OWN_TABLES = (VERSION_TABLE, JOURNAL, EVENTS, STANDING)


def read(connection: Connection) -> Snapshot:
    """Read the catalogue. Takes no lock that anybody waits for, and leaves the search_path as it was."""
    search_path = connection.exec_driver_sql("SELECT current_setting('search_path')").scalar_one()
    # with nothing in the path every name in a definition comes out qualified
    _set_search_path(connection, "")
    snapshot = _read(connection)
    _set_search_path(connection, search_path)
    return snapshot


def _set_search_path(connection: Connection, path: str) -> None:
    # for this transaction only, so that a failure between two calls leaves nothing behind
    connection.exec_driver_sql(f"SELECT set_config('search_path', {literal(path)}, true)")


def _read(connection: Connection) -> Snapshot:
    def rows(sql: str) -> list[dict[str, Any]]:
        return [dict(row) for row in connection.exec_driver_sql(sql).mappings()]

    def grouped(sql: str) -> dict[int, list[dict[str, Any]]]:
        groups: dict[int, list[dict[str, Any]]] = {}
        for row in rows(sql):
            groups.setdefault(row.pop("oid"), []).append(row)
        return groups

    (head,) = rows(queries.HEAD)
    relations = rows(queries.TABLES)
    names = {row["oid"]: (row["schema"], row["name"]) for row in relations}
    parts: dict[str, tuple[type[Any], dict[int, list[dict[str, Any]]]]] = {
        "columns": (Column, grouped(queries.columns(head["version"]))),
        "indexes": (Index, grouped(queries.INDEXES)),
        "triggers": (Trigger, grouped(queries.TRIGGERS)),
        "rules": (Rule, grouped(queries.RULES)),
        "policies": (Policy, grouped(queries.POLICIES)),
        "statistics": (Statistics, grouped(queries.STATISTICS)),
        "memberships": (Membership, grouped(queries.memberships(head["version"]))),
    }
    constraints, foreign_keys = {}, []
    for oid, found in grouped(queries.CONSTRAINTS).items():
        constraints[oid] = tuple(_constraint(row) for row in found if row["kind"] != "f")
        foreign_keys += [_foreign_key(names, oid, row) for row in found if row["kind"] == "f"]
    tables = {}
    for row in relations:
        oid = row.pop("oid")
        of_table: dict[str, Any] = {
            part: tuple(kind(**_frozen(item)) for item in each.get(oid, ())) for part, (kind, each) in parts.items()
        }
        tables[names[oid]] = Table(**_frozen(row), **of_table, constraints=constraints.get(oid, ()))
    functions = {row["identity"]: Function(**_frozen(row)) for row in rows(queries.FUNCTIONS)}
    made = {(row["kind"], row["identity"]): row["definition"] for row in rows(definitions.DEFINITIONS)}
    dependents, callers = _dependents(rows(queries.DEPENDENTS), tables, functions, made)
    return Snapshot(
        **_frozen(head),
        tables=tuple(tables.values()),
        foreign_keys=tuple(foreign_keys),
        dependents=tuple(dependents),
        functions=tuple(replace(each, dependents=tuple(callers.get(name, ()))) for name, each in functions.items()),
        sequences=tuple(_sequences(rows)),
    )


def _frozen(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with tuples for lists and `Grant`s for grants."""
    frozen = {name: _tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    if frozen.get("grants") is not None:
        frozen["grants"] = _grants(frozen["grants"])
    return frozen


def _grants(given: Iterable[tuple[str, str, str, str | None]]) -> tuple[Grant, ...]:
    return tuple(
        Grant(privileges, grantee, grantable == "t", grantor) for privileges, grantee, grantable, grantor in given
    )


def _tuple(values: list[Any]) -> tuple[Any, ...]:
    return tuple(_tuple(value) if isinstance(value, list) else value for value in values)


def _constraint(row: dict[str, Any]) -> Constraint:
    of_index = ("tablespace", "options", "index_comment", "included", "part_of")
    kept = ("name", "kind", "columns", "definition", "comment", *of_index)
    return Constraint(**_frozen({name: row[name] for name in kept}))


def _foreign_key(names: dict[int, tuple[str, str]], oid: int, row: dict[str, Any]) -> ForeignKey:
    of_index = ("kind", "tablespace", "options", "index_comment", "included", "part_of")
    row = {name: value for name, value in row.items() if name not in of_index}
    row["target"] = names[row["target"]]
    return ForeignKey(table=names[oid], **_frozen(row))


def _dependents(
    rows: list[dict[str, Any]],
    tables: dict[tuple[str, str], Table],
    functions: dict[str, Function],
    made: dict[tuple[str, str], str],
) -> tuple[list[Dependent], dict[str, list[Dependent]]]:
    """Return what depends on relations, and what depends on functions by their identity."""
    of_relations: list[Dependent] = []
    of_functions: dict[str, list[Dependent]] = {}
    for row in map(_frozen, rows):
        function = row.pop("function")
        row["definition"] = _definition(row, tables, functions) or made.get((row["kind"], row["identity"]))
        if function is None:
            of_relations.append(Dependent(**row))
        else:
            row["table"] = (functions[function].schema, function)
            of_functions.setdefault(function, []).append(Dependent(**row))
    return of_relations, of_functions


def _definition(
    row: dict[str, Any], tables: dict[tuple[str, str], Table], functions: dict[str, Function]
) -> str | None:
    """Return what an object is now, as PostgreSQL says it."""
    kind, name = row["kind"], row["name"]
    if kind in ("function", "procedure"):
        return functions[name].definition if name in functions else None
    table = tables.get(row["owner"])
    if table is None:
        return None
    if kind in ("view", "materialized view"):
        return table.definition
    parts: dict[str, Iterable[Trigger | Rule | Policy | Statistics]] = {
        "trigger": table.triggers,
        "rule": table.rules,
        "policy": table.policies,
        "statistics object": table.statistics,
    }
    return next((part.definition for part in parts.get(kind, ()) if part.name == name), None)


_AT_ONCE = 200
"""Sequences that are read with one statement."""


def _sequences(rows: Callable[[str], list[dict[str, Any]]]) -> Iterator[Sequence]:
    found = rows(queries.SEQUENCES)
    readable = [quoted(row["schema"], row["name"]) for row in found if row["readable"]]
    values: dict[str, dict[str, Any]] = {}
    for start in range(0, len(readable), _AT_ONCE):
        each = [
            f"SELECT {literal(sql)} AS sql, last_value, is_called FROM {sql}"
            for sql in readable[start : start + _AT_ONCE]
        ]
        values.update((row.pop("sql"), row) for row in rows(" UNION ALL ".join(each)))
    for row in map(_frozen, found):
        del row["readable"]
        if row["privileges"] is not None:
            row["privileges"] = _grants(row["privileges"])
        if row["owned_by"] is not None:
            *table, column = row["owned_by"]
            row["owned_by"] = (tuple(table), column)
        yield Sequence(**row, **values.get(quoted(row["schema"], row["name"]), {}))
