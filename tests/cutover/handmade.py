"""Snapshots and reports made by hand, for what is decided without a database."""

from __future__ import annotations

from collections.abc import Iterable

from app.cutover.catalog import Column, ForeignKey, Snapshot, Table
from app.cutover.census import Census
from app.cutover.diagram import Key
from app.cutover.findings import Action, Finding, Options, Situation
from app.cutover.plan import steps_for
from app.cutover.recognition import recognise
from app.cutover.report import Planned, Report
from app.cutover.surroundings import Contact, Surroundings

USERS: Key = ("public", "users")
TEXT = "text"


def column(name: str, type: str = TEXT, *, required: bool = True) -> Column:
    return Column(
        name, type, required, None, "", "", collation=None, comment=None, privileges=(), statistics=None
    )  # fmt: skip


def table(
    name: str,
    *columns: str | Column,
    schema: str = "public",
    kind: str = "r",
    rows: int = 10,
    size: int = 8192,
    parents: Iterable[Key] = (),
) -> Table:
    """Make a table; a column that is given by its name alone is a text."""
    return Table(
        schema, name, kind, owner="owner", owned=True, readable=True, rows=rows, size=size, comment=None,
        privileges=None, row_security=False, forced_row_security=False, parents=tuple(parents),
        columns=tuple(each if isinstance(each, Column) else column(each) for each in columns),
    )  # fmt: skip


def key(
    source: str,
    target: str,
    *,
    name: str | None = None,
    on_delete: str = "a",
    on_update: str = "a",
    validated: bool = True,
    inherited: bool = False,
    definition: str = "",
) -> ForeignKey:
    """Make a foreign key: `key("members.user_id", "users.id")`, `key("a.x,y", "b.x,y")`."""
    (from_table, _, from_columns), (to_table, _, to_columns) = source.partition("."), target.partition(".")
    return ForeignKey(
        name or f"{from_table}_{from_columns}_fk",
        ("public", from_table), tuple(from_columns.split(",")), ("public", to_table), tuple(to_columns.split(",")),
        definition, on_update, on_delete, validated, enforced=True, comment=None, inherited=inherited,
    )  # fmt: skip


def snapshot(*parts: Table | ForeignKey, database: str = "shop") -> Snapshot:
    tables = tuple(part for part in parts if isinstance(part, Table))
    keys = tuple(part for part in parts if isinstance(part, ForeignKey))
    return Snapshot(database, 150018, "owner", True, True, ("public",), ("public",), tables, keys)


def report(
    found: Snapshot,
    *actions: Action,
    options: Options | None = None,
    findings: Iterable[Finding] = (),
) -> Report:
    """Plan for a snapshot, with findings of one's own."""
    options = options or Options()
    layout = recognise(found, "public", options.choices)
    census = Census(Surroundings(Contact("owner", False, None, 1, 1, "port=5432")))
    plans = tuple(
        Planned(action, steps_for(action, found, layout, options, "somebody"))
        for action in (() if layout.doubts else actions)
    )
    return Report(Situation(found, layout, census, options, actions), tuple(findings), plans)
