"""After against before: what the journal says was there is compared with what is there now.

The promise: foreign keys are compared one by one, rows by count and by a hash that does not depend on their order, and
nothing that cannot be compared is called equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection

from app.cutover import catalog, census
from app.cutover.catalog import JOURNAL, Snapshot, literal, quoted
from app.cutover.layout import KEPT_COLUMNS, RETIRED_SCHEMA
from app.cutover.plan import IDS, MIRRORED, fingerprint_of_rows

Verdict = Literal["ok", "changed", "broken"]


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
    """Compare the database with the record of the last action; it only reads."""
    snapshot = catalog.read(connection)
    if snapshot.table(schema, JOURNAL) is None:
        return Verification(None, ())
    journal = quoted(schema, JOURNAL)
    entries = [
        (action, before, fingerprint)
        for action, before, fingerprint in connection.exec_driver_sql(
            f"SELECT action, before, fingerprint FROM {journal} ORDER BY id"
        )
    ]
    last = entries[-1][0]
    records = {action: (before, fingerprint) for action, before, fingerprint in entries}
    before, fingerprint = records.get("retire") or records["adopt"]
    found = list(_foreign_keys(snapshot, before, everything=last in ("adopt", "undo-retire")))
    if last == "undo-retire":
        restored: Verdict = "ok" if snapshot.fingerprint == fingerprint else "changed"
        found.append(Comparison("fingerprint of the catalogue", fingerprint, snapshot.fingerprint, restored))
    found += _rows(connection, snapshot, before, last)
    found += _orphans(connection, snapshot, before)
    if last in ("retire", "drop"):
        found += _gone(snapshot, before, last)
    return Verification(last, tuple(found))


def _foreign_keys(snapshot: Snapshot, before: dict[str, Any], *, everything: bool) -> Iterator[Comparison]:
    now = {(quoted(*key.table), key.name): key for key in snapshot.foreign_keys}
    expected = [key for key in before["foreign_keys"] if everything or not key["goes"]]
    known = {(key["table"], key["name"]) for key in before["foreign_keys"]}
    for key in expected:
        there = now.get((key["table"], key["name"]))
        after = "missing" if there is None else there.definition
        yield Comparison(
            f"foreign key {key['table']} {key['name']}",
            key["definition"],
            after,
            "ok" if after == key["definition"] else "broken",
        )
    for (table, name), new in now.items():
        if (table, name) not in known and new.table[0] != RETIRED_SCHEMA:
            yield Comparison(f"foreign key {table} {name}", "not there", new.definition, "changed")


def _rows(connection: Connection, snapshot: Snapshot, before: dict[str, Any], last: str) -> Iterator[Comparison]:
    present = {table.sql for table in snapshot.tables}
    moved = {sql: quoted(RETIRED_SCHEMA, *_names(connection, sql)[1:]) for sql in before["going"] if last == "retire"}
    for sql, count in sorted(before.get("rows", {}).items()):
        if sql in before["going"] and last == "drop":
            continue
        where = moved.get(sql, sql)
        if where not in present:
            yield Comparison(f"rows of {sql}", f"{count:,}", "missing", "broken")
            continue
        now = connection.exec_driver_sql(f"SELECT count(*) FROM {where}").scalar_one()
        # rows that came since are the app's doing; a table that is locked away must not have changed
        same: Verdict = "ok" if now == count else "broken" if sql in moved else "changed"
        yield Comparison(f"rows of {sql}" + (f", now {where}" if sql in moved else ""), f"{count:,}", f"{now:,}", same)
    users = before["users"]
    if users is None or "ids" not in before or users not in present:
        return
    kept = quoted(RETIRED_SCHEMA, KEPT_COLUMNS)
    if kept in present:
        lost = connection.exec_driver_sql(
            f"SELECT count(*) FROM {kept} k WHERE NOT EXISTS (SELECT FROM {users} u WHERE u.id = k.id)"
        ).scalar_one()
        yield Comparison("ids of users that are missing", "0", f"{lost:,}", "broken" if lost else "ok")
    for subject, member, columns in (
        ("ids of users", "ids", IDS),
        ("mirrored values of users", "mirrored", MIRRORED),
    ):
        now = connection.exec_driver_sql(f"SELECT {fingerprint_of_rows(users, columns)}").scalar_one()
        same = "ok" if now == before[member] else "changed"
        yield Comparison(f"{subject}, hashed", before[member], now, same)


def _names(connection: Connection, sql: str) -> list[str]:
    return list(connection.exec_driver_sql(f"SELECT parse_ident({literal(sql)})").scalar_one())


def _orphans(connection: Connection, snapshot: Snapshot, before: dict[str, Any]) -> Iterator[Comparison]:
    total, checked = 0, 0
    for key in snapshot.foreign_keys:
        table = snapshot.table(*key.table)
        plain = key.validated and key.enforced and not key.inherited
        if quoted(*key.target) == before["users"] and plain and table is not None and table.readable:
            total += census.orphans(connection, key)
            checked += 1
    if checked:
        yield Comparison(
            f"rows that violate one of {checked} foreign keys to users", "0", f"{total:,}", "broken" if total else "ok"
        )


def _gone(snapshot: Snapshot, before: dict[str, Any], last: str) -> Iterator[Comparison]:
    present = {table.sql for table in snapshot.tables}
    for sql in before["going"]:
        there = sql in present
        yield Comparison(f"table {sql}", "there", "there" if there else "gone", "broken" if there else "ok")
    users = next((table for table in snapshot.tables if table.sql == before["users"]), None)
    for name in before["going_columns"]:
        there = users is not None and users.column(name) is not None
        yield Comparison(f"column users.{name}", "there", "there" if there else "gone", "broken" if there else "ok")
    if before["going"] or before["going_columns"]:
        there = RETIRED_SCHEMA in snapshot.schemas
        right: Verdict = "ok" if there == (last == "retire") else "broken"
        yield Comparison(
            f"schema {RETIRED_SCHEMA}", "there" if last == "drop" else "not there", "there" if there else "gone", right
        )
