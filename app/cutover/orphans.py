"""Rows whose foreign keys come back with undo, and that refer to what is gone since: what follows, and what cannot.

    a key that cascades, or sets null    its rows follow, as they would have had it stood; they are named before
    any other key                        PostgreSQL would refuse it, so that a person decides

The promise: no row is deleted or emptied that was not counted first, those in other tables that follow it included. A
row that was deleted and one whose id or address is another now look alike from here, so a person decides here too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from app.cutover.catalog import ForeignKey, Snapshot, Table, quoted
from app.cutover.findings import Finding, Options
from app.cutover.layout import KEPT_COLUMNS, RETIRED_SCHEMA

_FOLLOW = ("c", "n")
"""Actions on delete that are caught up with."""

Condition = Callable[[str], str]
"""SQL that says of a row, by its alias, whether it is concerned."""


# ----------------------------------------------------------------------------------------------------- what undo does


def catching_up(snapshot: Snapshot, key: ForeignKey) -> Iterator[str]:
    """Yield what the foreign key would have done, had it stood, when a row it refers to was deleted meanwhile."""
    given = " AND ".join(f"r.{quoted(column)} IS NOT NULL" for column in key.columns)
    pairs = zip(key.columns, key.target_columns, strict=True)
    same = " AND ".join(f"t.{quoted(target)} = r.{quoted(column)}" for column, target in pairs)
    lost = f"{given} AND NOT EXISTS (SELECT FROM {quoted(*key.target)} t WHERE {same})"
    if not key.validated or key.violated:
        return  # what refers to nothing may have done so before
    if key.on_delete == "c":
        yield f"DELETE FROM {snapshot.rows_of(key)} r WHERE {lost}"
    elif key.on_delete == "n":
        emptied = ", ".join(f"{column} = NULL" for column in _emptied(key.columns, key.definition))
        yield f"UPDATE {snapshot.rows_of(key)} r SET {emptied} WHERE {lost}"


def _emptied(columns: Sequence[str], definition: str) -> list[str]:
    """Return the columns, as SQL, that a key sets null: all of its own, or those that it names."""
    named = re.search(r"ON DELETE SET NULL \(([^)]*)\)", definition)
    return [name.strip() for name in named[1].split(",")] if named else [quoted(each) for each in columns]


# ------------------------------------------------------------------------------------------- what it would come across


@dataclass(frozen=True, slots=True)
class _Key:
    """A foreign key that stands, or comes back, with the names of now."""

    name: str
    table: Table
    columns: tuple[str, ...]
    target: Table
    target_columns: tuple[str, ...]
    on_delete: str
    definition: str
    comes_back: bool
    told: str
    """What it refers to, as SQL with the name that comes back."""
    made_again: bool = False
    """Whether it stands, and PostgreSQL checks all its rows when the types of its columns change back."""

    def same(self, row: str, target: str) -> str:
        """Return SQL that says whether two rows, given by their aliases, belong together; ids may be of other types."""
        pairs = []
        for own, other in zip(self.columns, self.target_columns, strict=True):
            of_row, of_target = self.table.column(own), self.target.column(other)
            cast = "" if of_row and of_target and of_row.type == of_target.type else "::text"
            pairs.append(f"{target}.{quoted(other)}{cast} = {row}.{quoted(own)}{cast}")
        return " AND ".join(pairs)

    def lost(self, row: str) -> str:
        """Return SQL that says whether a row refers to what is not there."""
        given = " AND ".join(f"{row}.{quoted(column)} IS NOT NULL" for column in self.columns)
        return f"{given} AND NOT EXISTS (SELECT FROM {quoted(*self.target.key)} u WHERE {self.same(row, 'u')})"

    def following(self, gone: Condition) -> Condition:
        """Return the condition of a row that refers to one for which another condition holds."""
        return lambda row: (
            f"EXISTS (SELECT FROM {_rows(self.target)} {row}_ WHERE {self.same(row, f'{row}_')} AND {gone(f'{row}_')})"
        )


@dataclass(slots=True)
class _Loss:
    """What happens to rows of one table, and by which keys."""

    table: Table
    conditions: list[Condition] = field(default_factory=list)
    keys: list[_Key] = field(default_factory=list)
    count: int = 0
    roots: bool = True
    """Whether each of the keys comes back, and what its rows refer to is gone: they do not merely follow others."""


def examine(
    connection: Connection, snapshot: Snapshot, users: Table, before: Mapping[str, Any], options: Options
) -> Iterator[Finding]:
    """Yield what undoing retire would delete or empty, and what PostgreSQL would not let come back.

    Args:
        connection: the database.
        snapshot: its catalogue.
        users: the table.
        before: what was recorded of retire.
        options: what the person decided.
    """
    keys = tuple(_keys(snapshot, before))
    yield from _forbidden(connection, keys, before)
    yield from _forbidden_of_users(connection, snapshot, users, before)
    deleted, emptied, held = _followed(connection, keys, before)
    for loss in held.values():
        going = deleted[loss.table.sql].conditions if loss.table.sql in deleted else []
        if count := _count(connection, loss.table, loss.conditions, going):
            yield _holding(loss, count)
    if "undo-loses-rows" in options.accept:
        return
    for loss in deleted.values():
        yield _deleting(connection, loss, keys)
    for loss in emptied.values():
        going = deleted[loss.table.sql].conditions if loss.table.sql in deleted else []
        if count := _count(connection, loss.table, loss.conditions, going):
            yield _emptying(loss, count)
    yield from _kept_for_nobody(connection, snapshot, users, before)


def _rows(table: Table) -> str:
    """Return the rows a foreign key speaks of: all partitions of a table, but none that inherit from it."""
    return table.sql if table.kind == "p" else f"ONLY {table.sql}"


def _keys(snapshot: Snapshot, before: Mapping[str, Any]) -> Iterator[_Key]:
    """Yield the foreign keys as they will be: those that stand, and those that come back and can."""
    tables = {table.sql: table for table in snapshot.tables if snapshot.sees(table)}
    moved: Mapping[str, str] = before["moved"]
    now = {before["users"]: before["target"], **moved}

    def columns(of: str, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(before["renames"].get(name, name) if of == before["users"] else name for name in names)

    rewritten = {
        ((schema, table), column)
        for (schema, table, column), (_, type_) in zip(before.get("retyped", ()), before.get("types", ()), strict=False)
        if not type_.startswith(("text", "character varying"))
    }
    for found in snapshot.foreign_keys:
        table, target = tables.get(quoted(*found.table)), tables.get(quoted(*found.target))
        ends = {*((found.table, name) for name in found.columns), *((found.target, n) for n in found.target_columns)}
        if table is not None and target is not None and found.enforced and not found.inherited:
            yield _Key(
                found.name, table, found.columns, target, found.target_columns, found.on_delete, found.definition,
                comes_back=False, told=target.sql, made_again=found.validated and bool(ends & rewritten),
            )  # fmt: skip
    for each in before["foreign_keys"]:
        if each["inherited"] or not each["goes"] or not _comes_back_validated(each):
            continue
        if each["table"] in moved and each["target"] in moved:
            continue  # it moved along, and stands
        table, target = (tables.get(now.get(each[end], each[end])) for end in ("table", "target"))
        if table is None or target is None:
            continue
        own, others = columns(each["table"], each["columns"]), columns(each["target"], each["target_columns"])
        if all(map(table.column, own)) and all(map(target.column, others)):
            yield _Key(
                each["name"], table, own, target, others, each["on_delete"], each["definition"],
                comes_back=True, told=each["target"],
            )  # fmt: skip


def _comes_back_validated(key: Mapping[str, Any]) -> bool:
    """Whether PostgreSQL checks all rows when a key comes back: not where some violated it before retire."""
    return key["validated"] and not key.get("violated")


def _count(connection: Connection, table: Table, conditions: Sequence[Condition], but: Sequence[Condition] = ()) -> int:
    """Count the rows for which one of some conditions holds, and none of others."""
    each, others = (
        " UNION ".join(f"SELECT r.tableoid, r.ctid FROM {_rows(table)} r WHERE {condition('r')}" for condition in given)
        for given in (conditions, but)
    )
    less = f" EXCEPT ({others})" if others else ""
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM (({each}){less}) found").scalar_one())


def _followed(
    connection: Connection, keys: Sequence[_Key], before: Mapping[str, Any]
) -> tuple[dict[str, _Loss], dict[str, _Loss], dict[str, _Loss]]:
    """Return, each by its table, the rows that undo deletes and those it empties; and who would hold some of them."""
    deleted: dict[str, _Loss] = {}
    emptied: dict[str, _Loss] = {}
    held: dict[str, _Loss] = {}
    retired = set(before["moved"].values())

    def add(losses: dict[str, _Loss], key: _Key, condition: Condition, *, root: bool) -> None:
        """Add rows to those of a table, and who says so, if they are more then."""
        loss = losses.get(key.table.sql, _Loss(key.table))
        count = _count(connection, key.table, [*loss.conditions, condition])
        if count > loss.count:
            losses[key.table.sql] = loss
            loss.conditions.append(condition)
            loss.keys.append(key)
            loss.count, loss.roots = count, loss.roots and root

    for key in keys:
        if key.comes_back and key.table.sql in retired and key.on_delete in _FOLLOW:
            add(deleted if key.on_delete == "c" else emptied, key, key.lost, root=True)
    every = _gone(list(deleted.values()), cascading := _cascading(keys, deleted))
    for key in cascading:
        add(deleted, key, key.following(every), root=False)
    for key in keys:
        if key.target.sql in deleted and key.on_delete != "c":
            empties = key.on_delete == "n" or (key.on_delete == "d" and not key.comes_back)
            add(emptied if empties else held, key, key.following(every), root=False)
    return deleted, emptied, held


def _cascading(keys: Sequence[_Key], tables: Collection[str]) -> list[_Key]:
    """Return the keys by which rows follow that refer to some of these tables, and what refers to those in turn."""
    reached, found, further = set(tables), [], True
    while further:
        more = [each for each in keys if each.on_delete == "c" and each.target.sql in reached and each not in found]
        found += more
        reached |= {each.table.sql for each in more}
        further = bool(more)
    return found


def _gone(roots: Sequence[_Loss], cascading: Sequence[_Key]) -> Condition:
    """Return the condition of a row that goes, whatever its table: one of the roots, or one that follows, however far.

    It is of one size: rows of a table may refer to others of it, and those to others.
    """
    first = " UNION ".join(
        f"SELECT {_place('r')} FROM {_rows(loss.table)} r WHERE {_any(loss.conditions)}" for loss in roots
    )
    further = ""
    if cascading:
        pairs = " UNION ALL ".join(
            f"SELECT {_place('t')} AS referred, {_place('r')} AS referring FROM {_rows(key.target)} t "
            f"JOIN {_rows(key.table)} r ON {key.same('r', 't')}"
            for key in cascading
        )
        further = f" UNION SELECT p.referring FROM gone g JOIN ({pairs}) p ON p.referred = g.place"
    gone = f"WITH RECURSIVE gone (place) AS (({first}){further}) SELECT place FROM gone"
    return lambda row: f"{_place(row)} IN ({gone})"


def _place(row: str) -> str:
    """Return SQL for where a row is, as a text: PostgreSQL 13 cannot tell whether it came across a tid already."""
    return f"format('%s %s', {row}.tableoid, {row}.ctid)"


# ------------------------------------------------------------------------------------------------------------ in words


def _deleting(connection: Connection, loss: _Loss, keys: Sequence[_Key]) -> Finding:
    names = ", ".join(dict.fromkeys(key.name for key in loss.keys))
    message = f"{loss.count:,} rows of {loss.table.sql} would be deleted: "
    remedy = _listing(loss.table, loss.conditions)
    if not loss.roots:
        message += f"they follow what they refer to, which goes, by {names}."
        return _losing(loss.table.sql, message, remedy)
    targets = ", ".join(dict.fromkeys(key.told for key in loss.keys))
    message += f"what they refer to is not in {targets} any more, or has another id or address now ({names})."
    for key in loss.keys:
        if (other := _also_by_id(key, keys)) is not None and " ON UPDATE CASCADE" in key.definition:
            there = f"{key.lost('r')} AND {other.same('r', 't')}"
            count = int(
                connection.exec_driver_sql(
                    f"SELECT count(*) FROM {_rows(key.table)} r JOIN {key.target.sql} t ON {other.same('r', 't')} "
                    f"WHERE {key.lost('r')}"
                ).scalar_one()
            )
            if count:
                named = quoted(*key.target_columns)
                message += f" Of {count:,} of them the user is there by {other.name}, with another {named} now."
                pairs = ", ".join(
                    f"{quoted(own)} = t.{quoted(target)}"
                    for own, target in zip(key.columns, key.target_columns, strict=True)
                )
                update = f"UPDATE {_rows(key.table)} r SET {pairs} FROM {key.target.sql} t WHERE {there};"
                remedy = f"{update}  -- gives them the {named} of now\n{remedy}"
    return _losing(loss.table.sql, message, remedy)


def _also_by_id(key: _Key, keys: Sequence[_Key]) -> _Key | None:
    """Return another key of the same rows to the same table, over other columns of both: it says whose they are."""
    return next(
        (
            other
            for other in keys
            if (other.table.key, other.target.key) == (key.table.key, key.target.key)
            and other.comes_back
            and not set(other.target_columns) & set(key.target_columns)
        ),
        None,
    )


def _losing(table: str, message: str, remedy: str) -> Finding:
    return Finding("undo-loses-rows", "refuse", table, message, remedy)


def _emptying(loss: _Loss, count: int) -> Finding:
    names = ", ".join(dict.fromkeys(key.name for key in loss.keys))
    columns = ", ".join(dict.fromkeys(name for key in loss.keys for name in _emptied(key.columns, key.definition)))
    return _losing(
        loss.table.sql,
        f"In {count:,} rows of {loss.table.sql}, {columns} would be emptied: what it refers to is gone, goes too, or "
        f"has another id or address now ({names}).",
        _listing(loss.table, loss.conditions),
    )


def _any(conditions: Sequence[Condition]) -> str:
    return " OR ".join(condition("r") for condition in conditions)


def _listing(table: Table, conditions: Sequence[Condition]) -> str:
    return f"SELECT * FROM {_rows(table)} r WHERE {_any(conditions)};  -- lists them\n--accept undo-loses-rows"


def _kept_for_nobody(
    connection: Connection, snapshot: Snapshot, users: Table, before: Mapping[str, Any]
) -> Iterator[Finding]:
    """Values that were kept of users who are not there: they come back to nobody."""
    kept = snapshot.table(RETIRED_SCHEMA, KEPT_COLUMNS)
    if kept is None or users.column("id") is None:
        return
    columns = [quoted(name) for name in before["going_columns"] if kept.column(name) is not None]
    if not columns:
        return
    own = quoted(kept.columns[0].name)
    nobody = (
        f"FROM {kept.sql} k WHERE num_nonnulls({', '.join(columns)}) > 0 "
        f"AND NOT EXISTS (SELECT FROM {users.sql} u WHERE u.id = k.{own}::text)"
    )
    if count := int(connection.exec_driver_sql(f"SELECT count(*) {nobody}").scalar_one()):
        yield _losing(
            kept.sql,
            f"{count:,} rows of {kept.sql} would be lost: their users are gone, or have another id now, so that "
            f"{', '.join(columns)} would come back to nobody.",
            f"SELECT * {nobody};  -- lists them\n--accept undo-loses-rows",
        )


def _holding(loss: _Loss, count: int) -> Finding:
    keys, targets = (
        ", ".join(dict.fromkeys(each)) for each in zip(*((k.name, k.told) for k in loss.keys), strict=True)
    )
    return Finding(
        "undo-finds-orphans",
        "refuse",
        loss.table.sql,
        f"{count:,} rows of {loss.table.sql} refer to rows of {targets} that undo would delete, for what those refer "
        f"to is gone; {keys} forbids that.",
        f"DELETE FROM {_rows(loss.table)} r WHERE {_any(loss.conditions)};  -- if they are not needed",
    )


def _forbidden(connection: Connection, keys: Sequence[_Key], before: Mapping[str, Any]) -> Iterator[Finding]:
    """Rows that a foreign key which comes back forbids: retired ones of users deleted since, new ones of the app's."""
    retired = set(before["moved"].values())
    for key in keys:
        follows = key.comes_back and key.table.sql in retired and key.on_delete in _FOLLOW
        if follows or not (key.comes_back or key.made_again):
            continue
        if count := _count(connection, key.table, [key.lost]):
            where, lost = key.table.sql, key.lost("r")
            emptied = ", ".join(f"{quoted(column)} = NULL" for column in key.columns)
            yield _orphans(where, key.told, key.name, count, f"UPDATE {where} r SET {emptied} WHERE {lost};", lost)


def _forbidden_of_users(
    connection: Connection, snapshot: Snapshot, users: Table, before: Mapping[str, Any]
) -> Iterator[Finding]:
    """The same for a foreign key over columns of users that are kept, and come back with it."""
    kept = snapshot.table(RETIRED_SCHEMA, KEPT_COLUMNS)
    tables = {table.sql: table for table in snapshot.tables if snapshot.sees(table)}
    for each in before["foreign_keys"]:
        if kept is None or each["table"] != before["users"] or not each["goes"] or not _comes_back_validated(each):
            continue
        name = before["moved"].get(each["target"], each["target"])
        is_users = each["target"] == before["users"]
        target = users if is_users else tables.get(name)
        others = [before["renames"].get(c, c) if is_users else c for c in each["target_columns"]]
        if target is None or not (all(map(kept.column, each["columns"])) and all(map(target.column, others))):
            continue
        own, columns = quoted(kept.columns[0].name), [quoted(column) for column in each["columns"]]
        same = " AND ".join(f"u.{quoted(o)}::text = r.{c}::text" for o, c in zip(others, columns, strict=True))
        lost = (
            f"{' AND '.join(f'r.{column} IS NOT NULL' for column in columns)} "
            f"AND EXISTS (SELECT FROM {users.sql} o WHERE o.id = r.{own}::text) "
            f"AND NOT EXISTS (SELECT FROM {target.sql} u WHERE {same})"
        )
        if count := int(connection.exec_driver_sql(f"SELECT count(*) FROM {kept.sql} r WHERE {lost}").scalar_one()):
            emptied = ", ".join(f"{column} = NULL" for column in columns)
            update = f"UPDATE {kept.sql} r SET {emptied} WHERE {lost};"
            yield _orphans(kept.sql, each["target"], each["name"], count, update, None)


def _orphans(where: str, target: str, key: str, count: int, update: str, lost: str | None) -> Finding:
    delete = f"\n-- or, if they are not needed:\nDELETE FROM {where} r WHERE {lost};" if lost is not None else ""
    return Finding(
        "undo-finds-orphans",
        "refuse",
        where,
        f"{count:,} rows of {where} refer to what is not in {target} any more, or never was, and {key}, which comes "
        "back, forbids that.",
        update + delete,
    )
