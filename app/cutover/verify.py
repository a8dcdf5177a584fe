"""After against before: what the journal says was there is compared with what is there now.

The promise: foreign keys are compared one by one, rows by count and by a hash that does not depend on their order, and
nothing that cannot be compared is called equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from app.cutover import catalog, census, journal
from app.cutover.catalog import JOURNAL, Snapshot, Table, quoted
from app.cutover.changes import comes_along
from app.cutover.findings import Refused
from app.cutover.layout import KEPT_COLUMNS, RETIRED_SCHEMA
from app.cutover.shapes import is_wide_key
from app.cutover.signatures import TARGET_COLUMNS

Verdict = Literal["ok", "changed", "broken"]
LEFT_OUT = "missing, left out by undo"
"""What a person accepted that undo does not bring back, for the app dropped it since."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One thing compared. `changed` may be the app's own doing since; `broken` must not be."""

    subject: str
    before: str
    after: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Verification:
    """What the last action of the cutover left behind."""

    action: str | None
    """adopt, retire, drop or undo-retire; None where no cutover has run."""
    comparisons: tuple[Comparison, ...]

    @property
    def holds(self) -> bool:
        return all(comparison.verdict != "broken" for comparison in self.comparisons)


def verify(connection: Connection, schema: str) -> Verification:
    """Compare the database with the record of the last action; it only reads.

    Raises:
        Refused: the record is another role's, and not to be believed.
    """
    snapshot = catalog.read(connection)
    if snapshot.table(schema, JOURNAL) is None:
        return Verification(None, ())
    if untrusted := list(journal.not_trusted(snapshot, schema)):
        raise Refused(untrusted)
    entries = [
        (action, before, fingerprint)
        for action, before, fingerprint in connection.exec_driver_sql(
            f"SELECT action, before, fingerprint FROM {quoted(schema, JOURNAL)} ORDER BY id"
        )
    ]
    last = entries[-1][0]
    records = {action: (before, fingerprint) for action, before, fingerprint in entries}
    before, fingerprint = records.get("retire") or records["adopt"]
    names = _Names.after(before, retired=last in ("retire", "drop"))
    left_out: list[str] = entries[-1][1].get("left_out", []) if last == "undo-retire" else []
    found = list(_foreign_keys(snapshot, before, names, left_out))
    if last == "undo-retire" and fingerprint != records["adopt"][1]:
        # the same twice is of SQL that was written for both at once: what lay between was never looked at
        restored: Verdict = "ok" if snapshot.fingerprint == fingerprint else "changed"
        found.append(Comparison("fingerprint of the catalogue", fingerprint, snapshot.fingerprint, restored))
    found += _rows(connection, snapshot, before, names, last, left_out)
    found += _orphans(connection, snapshot, before, names)
    if last in ("retire", "drop"):
        found += _gone(snapshot, before, names, last)
    return Verification(last, tuple(found))


@dataclass(frozen=True, slots=True)
class _Names:
    """What things are called now that had other names before."""

    retired: bool
    before: str | None
    users: str | None
    columns: dict[str, str]
    fields: dict[str, str]
    moved: dict[str, str]

    @classmethod
    def after(cls, before: dict[str, Any], *, retired: bool) -> _Names:
        if not retired:
            return cls(False, before["users"], before["users"], {}, before["fields"], {})
        target = before["target"] if before["users"] else None
        fields = {name: name for name in before["fields"]}
        return cls(True, before["users"], target, before["renames"], fields, before["moved"])

    def table(self, sql: str) -> str:
        """Return what a table is called now."""
        return self.users if sql == self.before and self.users else self.moved.get(sql, sql)

    def definition(self, key: dict[str, Any]) -> str:
        """Return a foreign key's definition with the names of now."""
        text: str = key["definition"]
        for table, columns, was, now in (
            (key["target"], key["target_columns"], f"REFERENCES {key['target']}(", f"REFERENCES {self.users}("),
            (key["table"], key["columns"], "FOREIGN KEY (", "FOREIGN KEY ("),
        ):
            if table == self.before and self.retired:
                own = ", ".join(map(quoted, columns))
                new = ", ".join(quoted(self.columns.get(column, column)) for column in columns)
                text = text.replace(f"{was}{own})", f"{now}{new})", 1)
        return text


def _foreign_keys(
    snapshot: Snapshot, before: dict[str, Any], names: _Names, left_out: Sequence[str]
) -> Iterator[Comparison]:
    now = {(quoted(*key.table), key.name): key for key in snapshot.foreign_keys}
    expected = [key for key in before["foreign_keys"] if not names.retired or not key["goes"]]
    known = {(names.table(key["table"]), key["name"]) for key in before["foreign_keys"]}
    for key in expected:
        table, definition = names.table(key["table"]), names.definition(key)
        there = now.get((table, key["name"]))
        after = "missing" if there is None else there.definition
        same: Verdict = "ok" if after == definition else "broken"
        if key["goes"] and key.get("violated") and after == f"{definition} NOT VALID":
            same = "changed"  # undo could not bring it back validated
        making = f"ALTER TABLE {table} ADD CONSTRAINT {quoted(key['name'])} "
        if there is None and any(statement.startswith(making) for statement in left_out):
            after, same = LEFT_OUT, "changed"
        elif there is None and key["inherited"]:
            same = "changed"  # partitions come and go; where one is, it has the key of the whole, which is compared
        yield Comparison(f"foreign key {table} {key['name']}", definition, after, same)
    for (table, name), new in now.items():
        if (table, name) not in known and new.table[0] != RETIRED_SCHEMA and not comes_along(snapshot, new):
            yield Comparison(f"foreign key {table} {name}", "not there", new.definition, "changed")


def _rows(
    connection: Connection,
    snapshot: Snapshot,
    before: dict[str, Any],
    names: _Names,
    last: str,
    left_out: Sequence[str],
) -> Iterator[Comparison]:
    present = {table.sql for table in snapshot.tables}
    final = before.get("retired_rows", {}) if last == "retire" else {}
    for sql, count in sorted(final.items()):
        where = names.table(sql)
        now = connection.exec_driver_sql(f"SELECT count(*) FROM {where}").scalar_one() if where in present else 0
        kept: Verdict = "ok" if now == count else "broken"
        yield Comparison(f"rows kept in {where}", f"{count:,}", f"{now:,}", kept)
    for sql, count in sorted(before.get("rows", {}).items()):
        if sql in before["going"] and last == "drop":
            continue
        where = names.table(sql)
        if where not in present:
            made = tuple(f"ALTER TABLE {name} " for name in (where, before["moved"].get(sql)) if name)
            if any(statement.startswith(made) for statement in left_out):
                yield Comparison(f"rows of {sql}", f"{count:,}", LEFT_OUT, "changed")
            else:
                yield Comparison(f"rows of {sql}", f"{count:,}", "missing", "broken")
            continue
        now = connection.exec_driver_sql(f"SELECT count(*) FROM {where}").scalar_one()
        # what came or went since, or between the count and the lock, is the app's doing; rows do not get lost in a move
        same: Verdict = "ok" if now == count else "changed"
        yield Comparison(f"rows of {sql}" + (f", now {where}" if where != sql else ""), f"{count:,}", f"{now:,}", same)
    users = names.users
    if users is None or "ids" not in before or users not in present:
        return
    fields = names.fields
    there = next(table for table in snapshot.tables if table.sql == users)
    if gone := [quoted(name) for name in fields.values() if there.column(name) is None]:
        yield Comparison(f"columns of {users}", "there", f"{', '.join(gone)} gone", "changed")
        return
    yield from _missing(connection, snapshot, users)
    for subject, member, hashed in (
        ("ids of users", "ids", journal.hash_of_ids(users, fields)),
        ("mirrored values of users", "mirrored", journal.hash_of_mirrored(users, fields)),
    ):
        now = connection.exec_driver_sql(f"SELECT {hashed}").scalar_one()
        same = "ok" if now == before[member] else "changed"
        yield Comparison(f"{subject}, hashed", before[member], now, same)


def _missing(connection: Connection, snapshot: Snapshot, users: str) -> Iterator[Comparison]:
    """Compare with the ids that were copied when users shrank, where they were."""
    kept = snapshot.table(RETIRED_SCHEMA, KEPT_COLUMNS)
    if kept is not None:
        own = quoted(kept.columns[0].name)
        lost = connection.exec_driver_sql(
            f"SELECT count(*) FROM {kept.sql} k WHERE NOT EXISTS (SELECT FROM {users} u WHERE u.id = k.{own}::text)"
        ).scalar_one()
        # the app may delete its users; what the cutover did to ids shows in the foreign keys and the hash
        yield Comparison("users there were who are gone", "0", f"{lost:,}", "changed" if lost else "ok")


def _orphans(connection: Connection, snapshot: Snapshot, before: dict[str, Any], names: _Names) -> Iterator[Comparison]:
    known = {(names.table(key["table"]), key["name"]): key.get("violated", 0) for key in before["foreign_keys"]}
    were, are, checked, more = 0, 0, 0, False
    for key in snapshot.foreign_keys:
        table = snapshot.table(*key.table)
        plain = key.validated and key.enforced and not key.inherited
        if quoted(*key.target) == names.users and plain and table is not None and snapshot.sees(table):
            was, now = known.get((quoted(*key.table), key.name), 0), census.orphans(connection, snapshot, key)
            were, are, more = were + was, are + now, more or now > was
            checked += 1
    if checked:
        # of rows that were there before, the app may have mended some
        verdict: Verdict = "broken" if more else "changed" if are < were else "ok"
        yield Comparison(f"rows that violate one of {checked} foreign keys to users", f"{were:,}", f"{are:,}", verdict)


def _target(users: Table | None) -> Iterator[Comparison]:
    """Compare users with what the server needs."""
    for name, (type_, _) in TARGET_COLUMNS.items() if users else ():
        column = users.column(name) if users else None
        now = column.type if column else "missing"
        fits = column is not None and (is_wide_key(column) if name == "id" else now == type_)
        yield Comparison(f"column users.{name}", type_ if not fits else now, now, "ok" if fits else "broken")


def _gone(snapshot: Snapshot, before: dict[str, Any], names: _Names, last: str) -> Iterator[Comparison]:
    present = {table.sql for table in snapshot.tables if table.kind in ("r", "p")}
    renamed = [names.before] if names.before and names.before != names.users else []
    for sql in [*before["going"], *renamed]:
        there = sql in present
        yield Comparison(f"table {sql}", "there", "there" if there else "gone", "broken" if there else "ok")
    users = next((table for table in snapshot.tables if table.sql == names.users), None)
    for name in [*before["going_columns"], *before["renames"]]:
        there = users is not None and users.column(name) is not None
        yield Comparison(f"column users.{name}", "there", "there" if there else "gone", "broken" if there else "ok")
    yield from _target(users)
    if before["moved"] or before["going_columns"]:
        there = RETIRED_SCHEMA in snapshot.schemas
        right: Verdict = "ok" if there == (last == "retire") else "broken"
        yield Comparison(
            f"schema {RETIRED_SCHEMA}", "there" if last == "drop" else "not there", "there" if there else "gone", right
        )
