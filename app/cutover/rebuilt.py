"""What PostgreSQL makes anew by itself when a column changes its type, and what it forgets of that: the names, options,
comments and statistics targets of partitions' indexes, and that one is the replica identity.

The promise: pure, and what is gone by then is passed over, so that undo can run the same statements.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain

from app.cutover import aside, restore
from app.cutover.catalog import Column, Constraint, Index, Snapshot, Table, literal, quoted
from app.cutover.changes import Changes, Retype, children
from app.cutover.hush import in_dollars


def indexes(snapshot: Snapshot, changes: Changes, table: Table) -> Iterator[str]:
    """Yield what gives indexes, of a table and of what is below it, back what they lose with a column's type."""
    names = {each.column.name for each in changes.retypes if each.table.key == table.key}
    gone = {part.name for part in aside.parts(changes) if part.table.key == table.key}
    wholes = {quoted(each.schema, one.name): one for each in snapshot.tables for one in _indexes(each)}
    for each in dict.fromkeys((table, *children(snapshot, table))):
        # an index that merely includes a column is made anew with it
        own = [one for one in _indexes(each) if names & {*one.columns, *_included(one)}]
        lines = [*_renamed(each, own)]
        for one in own:
            if each.key == table.key and one.name in gone:
                continue
            lost = list(_lost(each, one, list(_above(one, wholes))))
            if lost:
                there = f"to_regclass({literal(quoted(each.schema, one.name))}) IS NOT NULL"
                lines.append(f"IF {there} THEN\n{_lines(lost)}\nEND IF;")
        if lines:
            yield _block("\n".join(lines))


def comments(snapshot: Snapshot, changes: Changes, table: Table) -> Iterator[str]:
    """Yield what gives the checks that others inherit from a table their comments there."""
    names = {each.column.name for each in changes.retypes if each.table.key == table.key}
    for child in dict.fromkeys(children(snapshot, table)):
        for check in child.constraints:
            if check.kind == "c" and check.comment is not None and names & set(check.columns):
                of_child = f"conrelid = to_regclass({literal(child.sql)}) AND conname = {literal(check.name)}"
                lost = _lines(restore.comment(f"CONSTRAINT {quoted(check.name)} ON {child.sql}", check.comment))
                yield _block(f"IF EXISTS (SELECT FROM pg_constraint WHERE {of_child}) THEN\n{lost}\nEND IF;")


def storage(snapshot: Snapshot, retype: Retype) -> Iterator[str]:
    """Yield what gives partitions and children of a table back how they store a column, after the table itself."""
    for child in children(snapshot, retype.table):
        column = child.column(retype.column.name)
        lost = list(_storage(child, column, retype.column)) if column is not None else []
        if lost:
            there = f"SELECT FROM pg_inherits WHERE inhrelid = to_regclass({literal(child.sql)})"
            yield _block(f"IF EXISTS ({there}) THEN\n{_lines(lost)}\nEND IF;")


def _storage(child: Table, column: Column, above: Column) -> Iterator[str]:
    yield from restore.storage(child, column)
    if column.storage is None and above.storage is not None:
        yield f"ALTER TABLE {child.sql} ALTER COLUMN {quoted(column.name)} SET STORAGE EXTENDED"


def _block(body: str) -> str:
    block = f"BEGIN\n{body}\nEND"
    return f"DO {in_dollars(block)}"


def _lines(statements: Iterable[str]) -> str:
    return "\n".join(f"{statement};" for statement in statements)


def _indexes(table: Table) -> Iterator[Constraint | Index]:
    return chain((each for each in table.constraints if each.kind in "pux"), table.indexes)


def _included(found: Constraint | Index) -> tuple[str, ...]:
    return found.included if isinstance(found, Constraint) else ()


def _renamed(table: Table, own: Collection[Constraint | Index]) -> Iterator[str]:
    """Yield what gives the indexes of a partition their own names again, whichever PostgreSQL chose for which."""
    pairs = [f"({literal(one.part_of)}, {literal(one.name)})" for one in own if one.part_of is not None]
    if not pairs:
        return
    # one may have got the name of another: first all get names that nothing has
    yield f"""DECLARE part record;
BEGIN
FOR named IN 0..1 LOOP
FOR part IN
SELECT x.indexrelid AS oid, own.name FROM (VALUES {", ".join(pairs)}) own (whole, name)
JOIN pg_inherits h ON h.inhparent = to_regclass(own.whole)
JOIN pg_index x ON x.indexrelid = h.inhrelid AND x.indrelid = to_regclass({literal(table.sql)})
JOIN pg_class c ON c.oid = x.indexrelid AND c.relname <> own.name
LOOP
EXECUTE format('ALTER INDEX %s RENAME TO %I', part.oid::regclass,
CASE named WHEN 0 THEN 'shadow ' || part.oid ELSE part.name END);
END LOOP;
END LOOP;
END;"""


def _above(found: Constraint | Index, wholes: Mapping[str, Constraint | Index]) -> Iterator[Constraint | Index]:
    """Yield the indexes that one is a part of: what it is made anew from."""
    while found.part_of is not None and found.part_of in wholes:
        found = wholes[found.part_of]
        yield found


def _lost(table: Table, own: Constraint | Index, above: Collection[Constraint | Index]) -> Iterator[str]:
    name = quoted(table.schema, own.name)
    if above:
        if table.kind != "p":  # that of a part which has parts has those of the whole, and keeps them
            yield from restore.index_options(name, own.options, [option for one in above for option in one.options])
        if own.tablespace is not None:
            yield f"ALTER INDEX {name} SET TABLESPACE {quoted(own.tablespace)}"
    if isinstance(own, Index):
        yield from restore.index_statistics(table, own)
    if not above:
        return
    if isinstance(own, Constraint):
        yield from restore.comment(f"CONSTRAINT {quoted(own.name)} ON {table.sql}", own.comment)
    # before PostgreSQL 16 those of the whole are copied
    if any(_comment(one) is not None for one in (own, *above)):
        yield f"COMMENT ON INDEX {name} IS {literal(_comment(own))}"
    yield from restore.chosen(table, own.name)


def _comment(found: Constraint | Index) -> str | None:
    return found.index_comment if isinstance(found, Constraint) else found.comment
