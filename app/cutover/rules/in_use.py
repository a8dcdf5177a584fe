"""What of the cutover's own, or of users, goes without being a table of Better Auth's, and is used by the app."""

from __future__ import annotations

import re
from collections.abc import Iterator

from app.cutover.catalog import Column, Dependent, Table, literal, quoted
from app.cutover.findings import Finding, Situation
from app.cutover.flags import flag
from app.cutover.journal import KEPT_TABLES
from app.cutover.layout import RETIRED_SCHEMA
from app.cutover.names import with_suffix
from app.cutover.release import named
from app.cutover.rules.by_hand import by_hand
from app.cutover.rules.keys import by_its_owner
from app.cutover.rules.objects import used_by


def sequence_of_ids(at: Situation) -> Iterator[Finding]:
    """The sequence that made ids goes; another column may take its numbers from it too."""
    changes = at.changes
    if changes is not None and changes.sequence is not None and "retire" in at.actions:
        yield from _drawing(at, changes.sequence.sql, (changes.users.key, changes.fields["id"].name))
        read = [
            found
            for found in at.objects.dependents
            if found.table == changes.users.key and found.column is None and found.kind != "default value"
            and _mentions(found.definition, changes.sequence.sql)
        ]  # fmt: skip
        yield from _reading(at, changes.sequence.sql, read)
    elif (kept := at.layout.kept_sequence) is not None and "drop" in at.actions:
        yield from _drawing(at, kept, None)
        for table in at.snapshot.tables:
            if table.kind in "vm" and _mentions(table.definition, kept):
                kind = "view" if table.kind == "v" else "materialized view"
                found = Dependent(kind, table.sql, None, table.key, table.key, None, table.definition)
                yield from _reading(at, kept, [found])


def _mentions(text: str | None, sequence: str) -> bool:
    return f"{literal(sequence)}::regclass" in (text or "")


def _drawing(at: Situation, sequence: str, but: tuple[tuple[str, str], str] | None) -> Iterator[Finding]:
    """Yield the columns that take their default from a sequence, but for one."""
    taken = {each.name for each in at.snapshot.sequences} | {each.name for each in at.snapshot.tables}
    for table in at.snapshot.tables:
        for column in table.columns:
            if _mentions(column.default, sequence) and (table.key, column.name) != but:
                taken.add(name := with_suffix(f"{table.name}_{column.name}", "_seq", taken))
                yield Finding(
                    "dependent-default-value",
                    "refuse",
                    f"{table.sql}.{quoted(column.name)}",
                    f"The default value of {table.sql}.{quoted(column.name)} takes numbers from {sequence}, the "
                    "sequence of users.id, which goes.",
                    _own_sequence(table, column, sequence, quoted(table.schema, name)),
                )


def _own_sequence(table: Table, column: Column, sequence: str, own: str) -> str:
    """Return what gives a column numbers of its own, from where the sequence stands."""
    if table.kind not in ("r", "p") or column.generated:
        kind = "VIEW" if table.kind == "v" else "TABLE"
        return (
            f"ALTER {kind} {table.sql} ALTER COLUMN {quoted(column.name)} DROP DEFAULT;\n-- it is now {column.default}"
        )
    default = (column.default or "").replace(f"{literal(sequence)}::regclass", f"{literal(own)}::regclass")
    lines = [
        f"CREATE SEQUENCE {own};",
        f"SELECT setval({literal(own)}, nextval({literal(sequence)}));",
        f"ALTER TABLE {table.sql} ALTER COLUMN {quoted(column.name)} SET DEFAULT {default};",
        f"ALTER SEQUENCE {own} OWNED BY {table.sql}.{quoted(column.name)};",
    ]
    return "\n".join(lines if table.owned else [f"-- as {table.owner}, to which the table belongs:", *lines])


def _reading(at: Situation, sequence: str, found: list[Dependent]) -> Iterator[Finding]:
    given = {(one.kind, one.identity) for name in at.options.release for one in named(at.objects, name)}
    for each in found:
        if (each.kind, each.identity) in given:
            continue
        released = f"{flag('release', each.identity)}\n-- or, by hand:\n" if "retire" in at.actions else ""
        yield Finding(
            f"dependent-{each.kind.replace(' ', '-')}",
            "refuse",
            each.identity,
            f"The {each.kind} {each.identity} takes numbers from {sequence}, the sequence of users.id, which goes.",
            released + by_hand(at.objects, each),
        )


def kept_by_name(at: Situation) -> Iterator[Finding]:
    """Function bodies are text to PostgreSQL: one that reads a retired table fails when it is next called."""
    if at.layout.kind == "retired":
        for function in at.snapshot.functions:
            if re.search(rf"\b{RETIRED_SCHEMA}\b", function.source):
                yield Finding(
                    "function-body",
                    "refuse" if function.trigger_on or any(used_by(function)) else "warn",
                    function.identity,
                    f"The body of {function.identity} mentions the schema {RETIRED_SCHEMA}, which goes. Afterwards it "
                    "may fail when it is next called.",
                    f"\\ef {function.identity}\n-- and rewrite it without it; if it only uses the word:\n"
                    "--accept function-body",
                )


def kept_tables(at: Situation) -> Iterator[Finding]:
    """What the app made of the rows that retire kept: a view over them, a foreign key to them."""
    if at.layout.kind != "retired":
        return
    for name in KEPT_TABLES:
        kept = (RETIRED_SCHEMA, name)
        for key in at.snapshot.keys_to(kept):
            if not key.inherited and key.table != kept:
                yield Finding(
                    "foreign-key-into-auth-table",
                    "refuse",
                    f"{quoted(*key.table)} ({', '.join(key.columns)})",
                    f"{key.name} on {quoted(*key.table)} refers to {quoted(*kept)}, which goes.",
                    f"{by_its_owner(at, key)}ALTER TABLE {quoted(*key.table)} DROP CONSTRAINT {quoted(key.name)};\n"
                    "-- keeps the column and its values",
                )
        found = {(one.kind, one.identity): one for one in at.objects.dependents if one.table == kept != one.owner}
        for each in found.values():
            yield Finding(
                f"dependent-{each.kind.replace(' ', '-')}",
                "refuse",
                each.identity,
                f"The {each.kind} {each.identity} depends on {quoted(*kept)}, which goes.",
                by_hand(at.objects, each),
            )
