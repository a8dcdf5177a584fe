"""What undo takes out of the way, as it stands right after a revision and as it is now: one that the app changed since
is not replaced by the one of before without a word.

The promise: an object is compared as the statements that make it, in PostgreSQL's own text, with its owner, grants and
comments; what differs is printed as it is now.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from app.cutover import restore
from app.cutover.catalog import JOURNAL, Column, Snapshot, Table, literal, quoted
from app.cutover.findings import Action, Finding, Options
from app.cutover.layout import is_beside
from app.cutover.queries import VISIBLE
from app.cutover.rules.by_hand import anew
from app.cutover.steps import apart

Made = Mapping[str, Sequence[str]]
"""Each statement by which undo takes an object out, with those that make the object."""


def keeping(schema: str, action: Action, made: Made) -> str:
    """Return the UPDATE that adds to the record of an action how that stands which its undo takes out."""
    journal = quoted(schema, JOURNAL)
    return (
        f"UPDATE {journal} SET before = before || jsonb_build_object('standing', {literal(json.dumps(made))}::jsonb) "
        f"WHERE id = (SELECT max(id) FROM {journal} WHERE action = {literal(action)})"
    )


def of(snapshot: Snapshot, before: Mapping[str, Any], statements: Iterable[str]) -> Made:
    """Return how that stands which undo takes out, and the defaults of what changes its type back.

    Args:
        snapshot: the catalogue, between the revision and its undo.
        before: what was recorded of the revision.
        statements: the undo.
    """
    wanted = _taken_out(statements)
    for schema, table, column in before.get("retyped", ()):
        wanted.add(without_default(before, quoted(schema, table), column))
    made: dict[str, list[str]] = {}
    for drop, make in _every(snapshot, before):
        if drop in wanted and drop not in made:
            made[drop] = [each for each in make if not each.startswith(("SET ", "REFRESH "))]
    return made


def without_default(before: Mapping[str, Any], table: str, column: str) -> str:
    """Return the statement that takes out a column's default.

    Args:
        before: what was recorded of the revision.
        table: its name now, as SQL.
        column: its name now.
    """
    if table == before["target"]:
        own = {now: was for was, now in before.get("renames", {}).items()}
        table, column = before["users"] or table, own.get(column, column)
    return f"ALTER TABLE {table} ALTER COLUMN {quoted(column)} DROP DEFAULT"


def _taken_out(statements: Iterable[str]) -> set[str]:
    parts = (part.replace("DROP VIEW IF EXISTS ", "DROP VIEW ") for each in statements for part in apart(each))
    return {part for part in parts if "DROP " in part}


def changed(
    snapshot: Snapshot,
    before: Mapping[str, Any],
    statements: Sequence[str],
    options: Options,
    is_untouched: Callable[[], bool],
) -> Iterator[Finding]:
    """Yield what the app changed since, of all that undo takes out; what is gone is found when it is missed.

    Args:
        snapshot: the catalogue.
        before: what was recorded of the revision.
        statements: the undo.
        options: what a person accepted.
        is_untouched: asked where nothing was recorded to compare with: whether nothing of the database was changed
            since.
    """
    if "undo-finds-changes" in options.accept:
        return
    now, wanted = of(snapshot, before, statements), _taken_out(statements)
    if "standing" not in before:
        if now and "undo-cannot-compare" not in options.accept and not is_untouched():
            yield _unknown(now)
        return
    for drop, was in before["standing"].items():
        if drop not in now or drop not in wanted:
            continue
        view = re.fullmatch(r"DROP VIEW (.+)", drop)
        comes_back = view is None or any(each.startswith(f"CREATE VIEW {view[1]} ") for each in statements)
        count = None if comes_back else 1
        beside = any(is_beside(table) and drop == f"DROP VIEW {table.sql}" for table in snapshot.tables)
        told = _of_any_column if beside else list
        if told(now[drop])[:count] != told(was)[:count]:
            kind, name = _named(drop)
            then = "takes that back" if comes_back else "drops it"
            yield Finding(
                "undo-finds-changes",
                "refuse",
                name,
                f"The {kind} {name} was changed since the cutover; undo {then}.",
                "\n".join(
                    ["--accept undo-finds-changes", *anew(kind, now[drop], "after undo, with the names of then")]
                ),
            )


def is_untouched(connection: Connection, schema: str, action: Action) -> bool:
    """Tell whether no statement changed the structure of the database since an action was recorded.

    Every change writes a row of the catalogue, which then has the number of the transaction that wrote it
    (PostgreSQL, 5.6 System Columns, xmin); the record of the action has that of the action.
    """
    journal = quoted(schema, JOURNAL)
    mark = f"(SELECT age(xmin) FROM {journal} WHERE action = {literal(action)} ORDER BY id DESC LIMIT 1)"
    relations = f"(SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {VISIBLE})"
    functions = f"(SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {VISIBLE})"
    owned = {
        "pg_class": f"oid IN {relations}",
        "pg_attribute": f"attrelid IN {relations}",
        "pg_attrdef": f"adrelid IN {relations}",
        "pg_constraint": f"conrelid IN {relations}",
        "pg_policy": f"polrelid IN {relations}",
        "pg_rewrite": f"ev_class IN {relations}",
        "pg_trigger": f"tgrelid IN {relations}",
        "pg_proc": f"oid IN {functions}",
        "pg_publication_rel": "true",
        "pg_statistic_ext": "true",
        "pg_description": "true",
    }
    later = " OR ".join(
        f"EXISTS (SELECT FROM {catalog} WHERE {which} AND age(xmin) < {mark})" for catalog, which in owned.items()
    )
    return not connection.exec_driver_sql(f"SELECT {later}").scalar_one()


def _unknown(now: Made) -> Finding:
    names = sorted(" ".join(_named(drop)) for drop in now)
    return Finding(
        "undo-cannot-compare",
        "refuse",
        "shadow_cutover",
        "The structure of the database was changed since the revision, and it was not recorded how that stood right "
        f"after it which undo takes out or replaces, so what was changed of it cannot be told: {', '.join(names)}.",
        "--accept undo-cannot-compare",
    )


def _of_any_column(made: Sequence[str]) -> list[str]:
    """Return what makes adopt's view, whatever the columns of the old app's table are called that it shows."""
    return [_SHOWN.sub(r"\1\2", text) for text in made]


_SHOWN = re.compile(r"^( *(?:SELECT )?)(?:\S.* AS |\S.*\.)([^.\n]+)$", re.MULTILINE)
"""A line of a view's query: what is before the column's own name is where it comes from."""
_NAME = r'(?:"(?:[^"]|"")*"|[^\s."]+)'
_DROPS = (
    rf"ALTER TABLE (?P<on>\S.*) DROP CONSTRAINT (?P<name>{_NAME})",
    rf"ALTER TABLE (?P<on>\S.*) DROP COLUMN (?P<name>{_NAME})",
    rf"ALTER TABLE (?P<on>\S.*) ALTER COLUMN (?P<name>{_NAME}) DROP DEFAULT",
    rf"ALTER PUBLICATION (?P<name>{_NAME}) DROP TABLE ONLY (?P<on>.*)",
    rf"DROP (?P<kind>TRIGGER|RULE|POLICY) (?P<name>{_NAME}) ON (?P<on>.*)",
    r"DROP (?P<kind>[A-Z]+(?: VIEW)?) (?P<name>.*)",
)
_KINDS = ("constraint", "generated column", "default of the column", "table in the publication")


def _named(drop: str) -> tuple[str, str]:
    """Return what a statement takes out: the kind, and the name as SQL."""
    for number, pattern in enumerate(_DROPS):
        if (found := re.fullmatch(pattern, drop, re.DOTALL)) is not None:
            parts = found.groupdict()
            kind = parts["kind"].lower() if "kind" in parts else _KINDS[number]
            return kind, f"{parts['name']} on {parts['on']}" if "on" in parts else parts["name"]
    return "object", drop


def _every(snapshot: Snapshot, before: Mapping[str, Any]) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield of each object what takes it out, with the names of before, and what makes it, which is told when asked."""
    old, new = before["users"] or before["target"], before["target"]
    own = {now: was for was, now in before.get("renames", {}).items()}
    retyped = [((schema, table), column) for schema, table, column in before.get("retyped", ())]
    for table in snapshot.tables:
        if any(key == table.key and table.column(name) is None for key, name in retyped):
            continue  # a column got another name, which is found when it is missed
        if table.kind == "v":
            yield f"DROP VIEW {table.sql}", _view(table, restore.view(table))
        if table.kind == "m":
            made = restore.materialized_view(table, populated=False)
            yield f"DROP MATERIALIZED VIEW {table.sql}", _view(table, made)
        if table.sql == new:
            yield from _of_table(snapshot, table, old, own)
        elif table.sql != old:
            yield from _of_table(snapshot, table, table.sql, {})
    for function in snapshot.functions:
        drop = f"DROP {function.kind.upper()} {function.identity}"
        yield drop, restore.function(function)


def _view(table: Table, made: Iterable[str]) -> Iterator[str]:
    """Yield what makes a view, and what goes unsaid with it."""
    yield from made
    yield from (each for rule in table.rules for each in restore.rule(table, rule))
    yield from (each for trigger in table.triggers for each in restore.trigger(table, trigger))
    yield from (each for statistics in table.statistics for each in restore.statistics(statistics))


def _of_table(
    snapshot: Snapshot, table: Table, name: str, own: Mapping[str, str]
) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield what is on a table.

    Args:
        snapshot: the catalogue.
        table: the table.
        name: its name before the revision, as SQL.
        own: the names of its columns to those of before, where these are others.
    """
    schema = re.match(rf"({_NAME})\.", name)
    place = schema[1] if schema is not None else quoted(table.schema)
    for each in table.triggers:
        yield f"DROP TRIGGER {quoted(each.name)} ON {name}", restore.trigger(table, each)
    for rule in table.rules:
        yield f"DROP RULE {quoted(rule.name)} ON {name}", restore.rule(table, rule)
    for policy in table.policies:
        yield f"DROP POLICY {quoted(policy.name)} ON {name}", restore.policy(table, policy)
    for found in table.constraints:
        drop = f"ALTER TABLE {name} DROP CONSTRAINT {quoted(found.name)}"
        yield drop, restore.constraint(table, found)
    for key in snapshot.keys_from(table.key):
        drop = f"ALTER TABLE {name} DROP CONSTRAINT {quoted(key.name)}"
        yield drop, restore.foreign_key(key)
    for index in table.indexes:
        yield f"DROP INDEX {place}.{quoted(index.name)}", restore.index(table, index)
    for one in table.statistics:
        yield f"DROP STATISTICS {quoted(one.schema, one.name)}", restore.statistics(one)
    for part in table.memberships:
        drop = f"ALTER PUBLICATION {quoted(part.name)} DROP TABLE ONLY {name}"
        yield drop, restore.membership(table, part)
    for column in table.columns:
        was = quoted(own.get(column.name, column.name))
        if column.generated:
            drop = f"ALTER TABLE {name} DROP COLUMN {was}"
            yield drop, _generated(snapshot, table, column)
        elif column.default is not None:
            again = f"ALTER TABLE {table.sql} ALTER COLUMN {quoted(column.name)} SET DEFAULT {column.default}"
            yield f"ALTER TABLE {name} ALTER COLUMN {was} DROP DEFAULT", (again,)


def _generated(snapshot: Snapshot, table: Table, column: Column) -> Iterator[str]:
    """Yield what makes a generated column, and what goes unsaid with it."""
    yield (
        f"ALTER TABLE {table.sql} ADD COLUMN {quoted(column.name)} {column.type} GENERATED ALWAYS AS "
        f"({column.default}) {'VIRTUAL' if column.generated == 'v' else 'STORED'}"
    )
    yield from restore.column(table, column)
    over = (each for each in table.constraints if column.name in each.columns)
    yield from (statement for each in over for statement in restore.constraint(table, each))
    indexes = (each for each in table.indexes if column.name in each.columns)
    yield from (statement for each in indexes for statement in restore.index(table, each))
    keys = (each for each in snapshot.keys_from(table.key) if column.name in each.columns)
    yield from (statement for each in keys for statement in restore.foreign_key(each))
