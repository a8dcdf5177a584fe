"""Names that are to be free: of what is no table, and of what PostgreSQL names alike in tables that inherit."""

from __future__ import annotations

from collections.abc import Iterator

from app.cutover import columns
from app.cutover.catalog import Snapshot, Table, quoted
from app.cutover.changes import RATE_LIMIT_ROWS, Changes, children
from app.cutover.findings import Finding, Situation
from app.cutover.layout import KEPT_COLUMNS
from app.cutover.names import with_suffix
from app.cutover.objects import Sequence
from app.cutover.signatures import USERS


def name_of_users(at: Situation) -> Iterator[Finding]:
    """An index, a sequence or a type has the name `users`, that no other relation and no row type can have then."""
    changes, schema = at.changes, at.layout.schema
    if changes.moves_users if changes is not None else (at.layout.users is None and "adopt" in at.actions):
        apart = with_suffix(USERS, "_old", _names(at.snapshot))
        for kind, name, of in _called_users(at.snapshot, changes, schema):
            yield Finding(
                "users-name-taken",
                "refuse",
                name,
                f"{quoted(schema, USERS)} is to be the server's table, but the {kind.lower()} {name}{of} has that name "
                "already.",
                f"ALTER {kind} {name} RENAME TO {quoted(apart)};",
            )


def _called_users(snapshot: Snapshot, changes: Changes | None, schema: str) -> Iterator[tuple[str, str, str]]:
    """Yield what is called users and no table: its kind, its name as SQL, and in words whose it is."""
    for table in snapshot.tables:
        moves_along = changes is not None and table.key == changes.users.key
        if USERS in _indexes(table) and (table.schema == schema or moves_along):
            yield "INDEX", quoted(table.schema, USERS), f" of {table.sql}"
    for sequence in snapshot.sequences:
        moves_along = changes is not None and _is_of(sequence, changes.users)
        if sequence.name == USERS and (sequence.schema == schema or moves_along):
            yield "SEQUENCE", sequence.sql, ""
    for kind, where, name in snapshot.types:
        if (where, name) == (schema, USERS):
            yield kind, quoted(where, name), ""


def sequences_collide(at: Situation) -> Iterator[Finding]:
    """Sequences move with the tables that own them: the schema they move to has room for one of a name."""
    changes = at.changes
    if changes is None:
        return
    fixed = dict.fromkeys((KEPT_COLUMNS, RATE_LIMIT_ROWS, f"{KEPT_COLUMNS}_pkey"), "a table of the cutover's own")
    fixed |= {move.name: f"the table {move.table.sql}" for move in changes.moves}
    if changes.sequence is not None and columns.is_kept(changes.sequence):
        fixed[changes.sequence.name] = f"the sequence {changes.sequence.sql}"
    every = _names(at.snapshot)
    seen = dict(fixed)
    for move in changes.moves:
        for name in _indexes(move.table):
            if name in fixed:
                yield _taken(at, "index", move.table, move.table.schema, name, fixed[name], every)
            seen.setdefault(name, f"an index of {move.table.sql}")
    for move in changes.moves:
        for sequence in at.snapshot.sequences:
            if _is_of(sequence, move.table):
                if sequence.name in seen:
                    yield _taken(at, "sequence", move.table, sequence.schema, sequence.name, seen[sequence.name], every)
                seen.setdefault(sequence.name, f"the sequence {sequence.sql}")
    yield from _collide_with_those_there(at, changes, every)


def _collide_with_those_there(at: Situation, changes: Changes, every: set[str]) -> Iterator[Finding]:
    """Yield the sequences of users whose names something has in the schema that users moves to."""
    users = changes.users
    if users.schema == changes.schema:
        return
    there = {each.name: f"the sequence {each.sql}" for each in at.snapshot.sequences if each.schema == changes.schema}
    for table in at.snapshot.tables:
        if table.schema == changes.schema:
            there |= {table.name: table.sql, **dict.fromkeys(_indexes(table), f"an index of {table.sql}")}
    for sequence in at.snapshot.sequences:
        # that of the ids does not move there
        if _is_of(sequence, users) and sequence != changes.sequence and sequence.name in there:
            yield _taken(at, "sequence", users, sequence.schema, sequence.name, there[sequence.name], every)


def _taken(at: Situation, kind: str, table: Table, schema: str, name: str, other: str, every: set[str]) -> Finding:
    every.add(apart := with_suffix(f"{schema}_{name}", "", every))
    return Finding(
        "index-name-taken" if kind == "index" else "sequence-name-taken",
        "refuse",
        f"{table.sql} {quoted(name)}",
        f"{table.sql} has {'an' if kind == 'index' else 'a'} {kind} {quoted(name)}, which moves with it to a schema in "
        f"which {other} has that name.",
        f"ALTER {kind.upper()} {quoted(schema, name)} RENAME TO {quoted(apart)};",
    )


def not_null_names(at: Situation) -> Iterator[Finding]:
    """From PostgreSQL 18 a not-null constraint made anew has one name in a table and in what inherits from it."""
    for retype in at.changes.retypes if at.changes else ():
        column, names = retype.column.name, {retype.table.key: _not_null(retype.table, retype.column.name)}
        # PostgreSQL renames those of partitions by itself
        below = [each for each in dict.fromkeys(children(at.snapshot, retype.table)) if each.partition_bound is None]
        renamed: list[tuple[Table, str, str]] = []
        for child in below:
            own = _not_null(child, column)
            above = next((names[key] for key in child.parents if names.get(key) is not None), None)
            names[child.key] = above or own
            if own is not None and above is not None and own != above:
                renamed.append((child, own, above))
        if not renamed:
            continue
        pairs = [(child.sql, quoted(*key)) for child in below for key in child.parents]
        statements = [
            "BEGIN",
            *(f"ALTER TABLE {child} NO INHERIT {parent}" for child, parent in pairs),
            *(f"ALTER TABLE {each.sql} RENAME CONSTRAINT {quoted(own)} TO {quoted(to)}" for each, own, to in renamed),
            *(f"ALTER TABLE {child} INHERIT {parent}" for child, parent in pairs),
            "COMMIT",
        ]
        called = "; ".join(f"that of {each.sql} is called {quoted(own)}, not {quoted(to)}" for each, own, to in renamed)
        yield Finding(
            "not-null-name",
            "refuse",
            f"{retype.table.sql}.{quoted(column)}",
            f"{retype.table.sql}.{quoted(column)} becomes {retype.type}, here and in what inherits from it; PostgreSQL "
            f"makes the not-null constraints anew under one name, but {called}.",
            "\n".join(f"{statement};" for statement in statements),
        )


def _not_null(table: Table, column: str) -> str | None:
    found = (each for each in table.constraints if each.kind == "n" and each.columns == (column,))
    return next((each.name for each in found if " NO INHERIT" not in each.definition), None)


def _is_of(sequence: Sequence, table: Table) -> bool:
    return sequence.owned_by is not None and sequence.owned_by[0] == table.key


def _indexes(table: Table) -> list[str]:
    owned = [constraint.name for constraint in table.constraints if constraint.kind in "pux"]
    return [*owned, *(index.name for index in table.indexes)]


def _names(snapshot: Snapshot) -> set[str]:
    """Return the names of everything that cannot have the name of a table beside it, in any schema."""
    found = {name for table in snapshot.tables for name in (table.name, *_indexes(table))}
    return found | {each.name for each in snapshot.sequences} | {name for _, _, name in snapshot.types}
