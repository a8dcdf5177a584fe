"""What came since a revision, and the names and types of before do not take: values, names of other things, defaults,
indexes.

The promise: all of it is named before undo changes anything, counted, with what takes it out of the way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.cutover import filling, standing
from app.cutover.catalog import Column, Snapshot, Table, literal, quoted
from app.cutover.changes import children
from app.cutover.findings import Finding
from app.cutover.layout import RETIRED_SCHEMA
from app.cutover.names import with_suffix


@dataclass(frozen=True, slots=True)
class _Back:
    """A column that changes its type back."""

    table: Table
    column: str
    """Its name now."""
    type: str
    """That of before."""
    plain: str
    """What that is over, where it is a domain."""

    @property
    def leaves_text(self) -> bool:
        """Whether it becomes a uuid or a number again."""
        return self.plain in _CONDITIONS


def examine(
    connection: Connection, snapshot: Snapshot, users: Table, before: Mapping[str, Any], statements: Sequence[str]
) -> Iterator[Finding]:
    """Yield what does not fit.

    Args:
        connection: the database.
        snapshot: its catalogue.
        users: the table of users, as it is now.
        before: what was recorded of the revision.
        statements: its undo.
    """
    back = list(_back(snapshot, before))
    taken = {table.name for table in snapshot.tables}
    for each in back:
        if (other := _of_another_type(each)) is not None:
            yield other
        elif not _has_it_again(each):
            if not _is_held(snapshot, each, back):
                yield from _values(connection, users, each, taken)
            yield from _alike(connection, each)
        yield from _default(each, before)
        yield from _indexes(connection, each, statements)
        for below in _below(snapshot, each):
            yield from _default_below(below, before)
            yield from _indexes(connection, below, statements)
    yield from _columns(users, before)
    yield from _names(connection, snapshot, before, statements)


def _back(snapshot: Snapshot, before: Mapping[str, Any]) -> Iterator[_Back]:
    """Yield what changes its type back; what is gone is found when it is missed."""
    retyped = before.get("retyped", ())
    # what was recorded before types were has that of the ids alone
    types = before.get("types") or [[before["id_type"] if name == "id" else "text"] * 2 for _, _, name in retyped]
    for (schema, name, column), (type_, plain) in zip(retyped, types, strict=True):
        table = snapshot.table(schema, name)
        if table is not None and table.column(column) is not None:
            yield _Back(table, column, type_, plain)


def _below(snapshot: Snapshot, back: _Back) -> Iterator[_Back]:
    """Yield the column of partitions and children, which changes with it."""
    return (replace(back, table=below) for below in dict.fromkeys(children(snapshot, back.table)))


# ------------------------------------------------------------------------------------------------------------- values


_TEXTS = frozenset({"text", "varchar", "bpchar", "citext", "name"})
"""pg_type.typname of what PostgreSQL reads a uuid or a number from."""


def _has_it_again(back: _Back) -> bool:
    """Whether the app gave a column the type of before itself."""
    column = back.table.column(back.column)
    return column is not None and column.type == back.type


def _of_another_type(back: _Back) -> Finding | None:
    """A column that the app made something else of since, from which no uuid or number is made."""
    column = back.table.column(back.column)
    if not back.leaves_text or column is None or column.base_type in _TEXTS or _has_it_again(back):
        return None
    name = quoted(back.column)
    text = f"{name} #>> '{{}}'" if column.base_type in ("json", "jsonb") else f"{name}::text"
    return Finding(
        "undo-finds-values",
        "refuse",
        f"{back.table.sql}.{name}",
        f"{back.table.sql}.{name} became {column.type} since; {back.type}, which comes back, is made of texts.",
        f"ALTER TABLE {back.table.sql} ALTER COLUMN {name} TYPE text USING {text};",
    )


def _alike(connection: Connection, back: _Back) -> Iterator[Finding]:
    """Values that came since and are one to the type of before: they differ in case, or in blanks at their end."""
    if not back.plain.endswith("citext") and not back.plain.startswith("character("):
        return
    table, own = back.table, quoted(back.column)
    columns = ", ".join(
        f"{own}::{back.type} AS {own}" if column.name == back.column else quoted(column.name)
        for column in table.columns
    )
    counts: dict[str, int] = {}
    for index, keys, predicate in filling.unique(connection, table.sql):
        if not any(re.search(rf'(?<![\w"]){re.escape(own)}(?![\w"])', key) for key in keys):
            continue
        none = " AND ".join(f"({key}) IS NOT NULL" for key in keys)
        where = f" WHERE {predicate}" if predicate else ""
        groups = f"(SELECT {columns} FROM {table.sql}) AS {quoted(table.name)}{where} GROUP BY {', '.join(keys)}"
        alike = f"SELECT count(*) AS n FROM {groups} HAVING count(*) > 1 AND {none}"
        if count := connection.exec_driver_sql(f"SELECT coalesce(sum(n), 0) FROM ({alike}) AS alike").scalar_one():
            counts[quoted(index)] = int(count)
    if counts:
        yield Finding(
            "undo-finds-values",
            "refuse",
            f"{table.sql}.{own}",
            f"{max(counts.values()):,} rows of {table.sql} have in {own} what is alike to {back.type}, which comes "
            f"back, and {', '.join(counts)} lets it be there once.",
            f"SELECT {own}::{back.type} AS alike, array_agg({own}) FROM {table.sql} GROUP BY 1 HAVING count(*) > 1;\n"
            "-- and change all but one of each",
        )


_UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


def _number(bits: int) -> str:
    largest = 2 ** (bits - 1)
    inside = f"{{0}}::numeric BETWEEN {-largest} AND {largest - 1}"
    return f"CASE WHEN {{0}} ~ '^(0|-?[1-9][0-9]{{{{0,18}}}})$' THEN {inside} ELSE false END"


_CONDITIONS = {
    "uuid": "{0} ~ '" + _UUID.replace("{", "{{").replace("}", "}}") + "'",
    "smallint": _number(16),
    "integer": _number(32),
    "bigint": _number(64),
}
"""Of each type that was rewritten, which texts it takes, and gives back unchanged."""
_LENGTH = re.compile(r"character(?: varying)?\((\d+)\)")


def _values(connection: Connection, users: Table, back: _Back, taken: set[str]) -> Iterator[Finding]:
    """Values that came since, which the type of before would refuse, or cut; `taken` are names of tables."""
    name = quoted(back.column)
    length = _LENGTH.fullmatch(back.plain)
    if length is not None:
        wrong = f"length({name}::text) > {length[1]}"
    elif back.plain in _CONDITIONS:
        wrong = f"NOT ({_CONDITIONS[back.plain].format(name)})"
    elif back.type != back.plain:
        yield from _of_domain(connection, back)
        return
    else:
        return
    column = back.table.column(back.column)
    if column is None:
        return
    wrong += "" if column.not_null else f" AND {name} IS NOT NULL"
    rows = f"FROM {back.table.sql} WHERE {wrong}"
    count = int(connection.exec_driver_sql(f"SELECT count(*) {rows}").scalar_one())
    if not count:
        return
    taken.add(apart := with_suffix(back.table.name, "_since", taken))
    kept = f"CREATE TABLE {quoted(back.table.schema, apart)} AS SELECT * {rows};"
    if (back.table.key, back.column) == (users.key, "id"):
        why = f"are no {back.type}" if length is None else f"are longer than {back.type}"
        yield Finding(
            "undo-finds-ids",
            "refuse",
            users.sql,
            f"{count:,} users came since, whose ids {why}, which comes back.",
            f"{kept}\nDELETE {rows};  -- and what refers to them, first",
        )
        return
    then = f"DELETE {rows};"
    if length is not None:
        then = f"UPDATE {back.table.sql} SET {name} = left({name}, {length[1]}) WHERE {wrong};"
    elif not column.not_null:
        then = f"UPDATE {back.table.sql} SET {name} = NULL WHERE {wrong};"
    yield Finding(
        "undo-finds-values",
        "refuse",
        f"{back.table.sql}.{name}",
        f"{count:,} rows of {back.table.sql} have in {name} what {back.type}, which comes back, does not hold.",
        f"{kept}\n{then}",
    )


def _is_held(snapshot: Snapshot, back: _Back, others: Sequence[_Back]) -> bool:
    """Whether a foreign key sees to it that all values are of a column that has the same type to come back to."""
    same = {(each.table.key, each.column) for each in others if each.plain == back.plain}
    alone = not any(back.table.key in table.parents for table in snapshot.tables)
    return alone and any(
        key.columns == (back.column,) and key.validated and key.enforced and (key.target, key.target_columns[0]) in same
        for key in snapshot.keys_from(back.table.key)
        if (key.target, key.target_columns[0]) != (back.table.key, back.column)
    )


def _of_domain(connection: Connection, back: _Back) -> Iterator[Finding]:
    """Values that a domain's checks refuse: only PostgreSQL can tell, at the first of them."""
    name, table = quoted(back.column), back.table.sql
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(f"SELECT count({name}::{back.type}) FROM {table}")
    except DBAPIError as error:
        if (getattr(error.orig, "sqlstate", None) or "")[:2] not in ("22", "23"):
            raise
        yield Finding(
            "undo-finds-values",
            "refuse",
            f"{table}.{name}",
            f"Rows of {table} have in {name} what {back.type}, which comes back, does not hold.",
            f"SELECT {name} FROM {table} ORDER BY 1;  -- and change what the domain's checks refuse",
        )


# ------------------------------------------------------------------------------------------------ defaults and indexes


def _default(back: _Back, before: Mapping[str, Any]) -> Iterator[Finding]:
    """A default that came since: PostgreSQL does not make a uuid or a number of it."""
    column = back.table.column(back.column)
    if column is not None and "standing" in before:
        change = f"ALTER TABLE {back.table.sql} ALTER COLUMN {quoted(column.name)}"
        known = before["standing"].get(standing.without_default(before, back.table.sql, column.name), [])
        yield from _default_since(back, column, known == [f"{change} SET DEFAULT {column.default}"])


def _default_below(back: _Back, before: Mapping[str, Any]) -> Iterator[Finding]:
    """One of a partition or child, which may have another than what it is a part of."""
    column = back.table.column(back.column)
    if column is not None and "defaults" in before:
        known = [*back.table.key, column.name, column.default] in before["defaults"]
        yield from _default_since(back, column, known)


def _default_since(back: _Back, column: Column, known: bool) -> Iterator[Finding]:
    if back.leaves_text and not _has_it_again(back) and column.default and not column.generated and not known:
        change = f"ALTER TABLE {back.table.sql} ALTER COLUMN {quoted(column.name)}"
        yield Finding(
            "undo-finds-objects",
            "refuse",
            f"{back.table.sql}.{quoted(column.name)}",
            f"{back.table.sql}.{quoted(column.name)}, which becomes {back.type} again, got its default since.",
            f"{change} DROP DEFAULT;\n-- it is now {column.default}",
        )


_INDEXES = """
SELECT DISTINCT n.nspname::text AS schema, x.relname::text AS name, pg_get_indexdef(x.oid) AS definition,
    (SELECT conname::text FROM pg_constraint WHERE conindid = x.oid AND contype IN ('p', 'u', 'x') LIMIT 1) AS bound
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
CROSS JOIN generate_series(0, i.indnkeyatts - 1) k
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]
JOIN pg_opclass o ON o.oid = i.indclass[k]
WHERE i.indrelid = to_regclass({table}) AND a.attname = {column}
    AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = x.oid)
    AND (i.indcollation[k] <> a.attcollation OR NOT o.opcdefault OR NOT EXISTS (
        SELECT FROM pg_opclass d
        WHERE d.opcmethod = o.opcmethod AND d.opcdefault AND d.opcintype = to_regtype({type})))
ORDER BY 1, 2"""


def _indexes(connection: Connection, back: _Back, statements: Sequence[str]) -> Iterator[Finding]:
    """Indexes that order texts in a way of their own, which a uuid or a number does not have."""
    if not back.leaves_text or _has_it_again(back):
        return
    table, column, type_ = literal(back.table.sql), literal(back.column), literal(back.plain)
    for found in connection.exec_driver_sql(_INDEXES.format(table=table, column=column, type=type_)).mappings():
        index = quoted(found["schema"], found["name"])
        drop = f"DROP INDEX {index}"
        if found["bound"] is not None:
            drop = f"ALTER TABLE {back.table.sql} DROP CONSTRAINT {quoted(found['bound'])}"
        if drop not in statements:
            yield Finding(
                "undo-finds-objects",
                "refuse",
                index,
                f"The index {index} orders {back.table.sql}.{quoted(back.column)} as text, and {back.type} comes back.",
                f"{drop};\n-- it is now: {found['definition']};",
            )


# -------------------------------------------------------------------------------------------------------------- names


def _columns(users: Table, before: Mapping[str, Any]) -> Iterator[Finding]:
    """Columns of users that have the old name of another."""
    renames = before["renames"]
    for own in sorted(renames.keys() - set(renames.values())):
        if users.column(own) is not None:
            apart = with_suffix(own, "_own", [column.name for column in users.columns])
            yield Finding(
                "name-taken",
                "refuse",
                f"{users.sql}.{quoted(own)}",
                f"{users.sql} has a column {quoted(own)} again; {quoted(renames[own])} gets that name back.",
                f"ALTER TABLE {users.sql} RENAME COLUMN {quoted(own)} TO {quoted(apart)};",
            )


_KINDS = {
    "S": "SEQUENCE",
    "i": "INDEX",
    "I": "INDEX",
    "r": "TABLE",
    "p": "TABLE",
    "v": "VIEW",
    "m": "MATERIALIZED VIEW",
    "f": "FOREIGN TABLE",
    "c": "TYPE",
}
"""Of pg_class.relkind, what ALTER calls it."""
_TAKEN = """
SELECT n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind, NULL AS type
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE (n.nspname, c.relname) IN ({names})
UNION ALL
SELECT n.nspname::text, t.typname::text, '', CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE (n.nspname, t.typname) IN ({names}) AND t.typrelid = 0
    AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
ORDER BY 1, 2, 3"""


def _names(
    connection: Connection, snapshot: Snapshot, before: Mapping[str, Any], statements: Sequence[str]
) -> Iterator[Finding]:
    """Names that come back and are taken, but for those of tables by tables and of indexes by indexes (undo.py)."""
    wanted = {_parts(sql): "table" for sql in {*before["moved"], before["users"]} - {before["target"], None}}
    wanted |= dict.fromkeys(map(tuple, before.get("index_names", ())), "index")
    wanted |= dict.fromkeys(_sequences(snapshot, before, statements), "sequence")
    if not wanted:
        return
    names = ", ".join(f"({literal(schema)}, {literal(name)})" for schema, name in wanted)
    found = [dict(row) for row in connection.exec_driver_sql(_TAKEN.format(names=names)).mappings()]
    taken = {row["name"] for row in found} | {table.name for table in snapshot.tables}
    for row in found:
        place = row["schema"], row["name"]
        same = {"table": "rpvmf", "index": "iI"}.get(wanted[place], "")
        if (row["kind"] and row["kind"] in same) or (row["type"] and wanted[place] != "table"):
            continue
        kind, apart = row["type"] or _KINDS[row["kind"]], with_suffix(row["name"], "_own", taken)
        yield Finding(
            "name-taken",
            "refuse",
            quoted(*place),
            f"The {kind.lower()} {quoted(*place)} has the name of the {wanted[place]} that comes back.",
            f"ALTER {kind} {quoted(*place)} RENAME TO {quoted(apart)};",
        )


def _sequences(snapshot: Snapshot, before: Mapping[str, Any], statements: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the sequences that come back: with the tables to which they belong, and that which made ids."""
    homes = {_parts(now)[1]: _parts(was)[0] for was, now in before["moved"].items()}
    for sequence in snapshot.sequences:
        if sequence.owned_by is not None and sequence.schema == RETIRED_SCHEMA:
            (_, table), _ = sequence.owned_by
            if table in homes:
                yield homes[table], sequence.name
    for statement in statements:
        if kept := before.get("kept_sequence"):
            moved = re.fullmatch(rf"ALTER SEQUENCE {re.escape(kept)} SET SCHEMA (.+)", statement)
            if moved is not None:
                yield _plain(moved[1]), _parts(kept)[1]
        if (made := re.search(rf"\(SEQUENCE NAME ({_NAME}\.{_NAME}) ", statement)) is not None:
            yield _parts(made[1])


_NAME = r'(?:"(?:[^"]|"")*"|[^\s."]+)'


def _parts(sql: str) -> tuple[str, str]:
    """Return the schema and the name of which `quoted` made SQL."""
    schema, name = re.findall(_NAME, sql)
    return _plain(schema), _plain(name)


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
