"""Foreign keys of the app's own: into what goes, along with what goes, and to the addresses that change."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from app.cutover.catalog import ForeignKey, Table, quoted
from app.cutover.findings import Finding, Situation, detached
from app.cutover.flags import flag


def foreign_keys_into_going_tables(at: Situation) -> Iterator[Finding]:
    """A foreign key of the app's own into a table that goes: a CASCADE would silently drop it."""
    for key in at.snapshot.keys_to(*at.going):
        if key.table in at.going or key.inherited:
            continue
        where = f"{quoted(*key.table)} ({', '.join(key.columns)})"
        short = f"{key.table[0]}.{key.table[1]}.{key.columns[0]}"
        if detached(key, at.options):
            yield Finding(
                "foreign-key-detached",
                "info",
                where,
                f"{key.name} on {where} refers to {quoted(*key.target)}, which goes; the constraint is dropped, "
                "the column and its values stay.",
                "-- shadow undo restores it",
            )
        else:
            yield Finding(
                "foreign-key-into-auth-table",
                "refuse",
                where,
                f"{key.name} on {where} refers to {quoted(*key.target)}, which goes.",
                f"{flag('detach', short)}\n-- drops that one constraint, and keeps the column and its values. Or:\n"
                f"{by_its_owner(at, key)}"
                f"ALTER TABLE {quoted(*key.table)} DROP CONSTRAINT {quoted(key.name)};",
            )


def foreign_keys_into_going_columns(at: Situation) -> Iterator[Finding]:
    """A foreign key of the app's own to a column of users that goes."""
    users = at.layout.users
    for key in at.snapshot.keys_to(users.key) if users else ():
        if not key.inherited and (gone := set(key.target_columns) & at.going_columns):
            column = ", ".join(sorted(gone))
            yield Finding(
                "foreign-key-into-column",
                "refuse",
                quoted(*key.table),
                f"{key.name} on {quoted(*key.table)} refers to users ({column}), which goes.",
                " ".join(flag("keep", f"users.{name}") for name in sorted(gone)),
            )


def indexes_that_include_going_columns(at: Situation) -> Iterator[Finding]:
    """What is unique in users and merely includes a column that goes would go with it, and foreign keys rest on it."""
    users = at.layout.users
    if users is None:
        return
    for constraint in users.constraints:
        gone = at.going_columns & set(constraint.included)
        if gone and not at.going_columns & set(constraint.columns):
            again = f"ADD CONSTRAINT {quoted(constraint.name)} {_INCLUDED.sub('', constraint.definition, count=1)}"
            change = f"ALTER TABLE {users.sql} DROP CONSTRAINT {quoted(constraint.name)}, {again};"
            resting = _resting(at, users, {*constraint.columns, *constraint.included})
            yield _includes(users, constraint.name, gone, resting, change)
    for index in users.indexes:
        gone = at.going_columns & set(index.columns)
        resting = _resting(at, users, set(index.columns)) if index.unique else []
        if gone and resting and not any(gone & set(key.target_columns) for key in resting):
            again = _INCLUDED.sub("", index.definition, count=1)
            change = f"DROP INDEX {quoted(users.schema, index.name)};\n{again};"
            yield _includes(users, index.name, gone, resting, change)


_INCLUDED = re.compile(r""" INCLUDE \((?:[^"()]|"(?:[^"]|"")*")*\)""")


def _resting(at: Situation, users: Table, columns: set[str]) -> list[ForeignKey]:
    """Return the foreign keys that rest on an index of users over these columns, those included too."""
    return [key for key in at.snapshot.keys_to(users.key) if not key.inherited and set(key.rests_on) == columns]


def _includes(users: Table, name: str, gone: Iterable[str], resting: list[ForeignKey], change: str) -> Finding:
    drops = [f"ALTER TABLE {quoted(*key.table)} DROP CONSTRAINT {quoted(key.name)};" for key in resting]
    again = [f"ALTER TABLE {quoted(*key.table)} ADD CONSTRAINT {quoted(key.name)} {key.definition};" for key in resting]
    rests = ", ".join(f"{key.name} on {quoted(*key.table)}" for key in resting)
    return Finding(
        "index-includes-column",
        "refuse",
        f"{users.sql} {name}",
        f"The unique index {name} on users includes {', '.join(sorted(gone))}, which goes, and would go with it"
        + (f"; on it rests {rests}." if rests else "."),
        "\n".join([*drops, change, *again]),
    )


def foreign_keys_of_going_columns(at: Situation) -> Iterator[Finding]:
    """A column that goes takes its own foreign key along; undo restores both."""
    users = at.layout.users
    for key in at.snapshot.keys_from(users.key) if users else ():
        if gone := set(key.columns) & at.going_columns:
            yield Finding(
                "foreign-key-of-column",
                "info",
                f"users.{', '.join(sorted(gone))}",
                f"{key.name} on users goes with its column {', '.join(sorted(gone))}.",
                "-- shadow undo restores both",
            )


def foreign_keys_to_email(at: Situation) -> Iterator[Finding]:
    """A foreign key to users(email) that does not follow updates: a changed address would be refused."""
    users = at.layout.users
    email = at.layout.fields["email"].name if "email" in at.layout.fields else ""
    for key in at.snapshot.keys_to(users.key) if users else ():
        follows = key.on_update == "c" or key.table in at.going or key.inherited or not key.enforced
        if email in key.target_columns and not follows:
            yield Finding(
                "foreign-key-to-email",
                "refuse",
                f"{quoted(*key.table)} ({', '.join(key.columns)})",
                f"{key.name} on {quoted(*key.table)} refers to users ({quoted(email)}) without ON UPDATE CASCADE; when "
                "a user's address changes at the provider, the database would refuse it.",
                f"{by_its_owner(at, key)}ALTER TABLE {quoted(*key.table)} DROP CONSTRAINT {quoted(key.name)}, "
                f"ADD CONSTRAINT {quoted(key.name)} {_following(key.definition)};",
            )


def by_its_owner(at: Situation, key: ForeignKey) -> str:
    """Return who must alter the table, as a comment before the SQL, where that is not the role that looked."""
    table = at.snapshot.table(*key.table)
    return f"-- as {table.owner}, to which the table belongs:\n" if table is not None and not table.owned else ""


_ACTION = r"(?:NO ACTION|RESTRICT|CASCADE|SET (?:NULL|DEFAULT)(?: \([^)]*\))?)"
_ACTIONS = re.compile(
    rf"(?: ON UPDATE {_ACTION})?"
    rf"(?P<rest>(?: ON DELETE {_ACTION})?(?: DEFERRABLE)?(?: INITIALLY DEFERRED)?(?: NOT VALID)?)\Z"
)


def _following(definition: str) -> str:
    """Return a foreign key's definition with ON UPDATE CASCADE."""
    return _ACTIONS.sub(lambda found: f" ON UPDATE CASCADE{found['rest']}", definition, count=1)


def foreign_keys_that_ignore_case(at: Situation) -> Iterator[Finding]:
    """What citext took for the same is not the same as text."""
    for (table, name), count in at.census.recased.items():
        key = next(each for each in at.snapshot.keys_from(table) if each.name == name)
        pairs = [(quoted(own), quoted(there)) for own, there in zip(key.columns, key.target_columns, strict=True)]
        yield Finding(
            "foreign-key-case",
            "refuse",
            f"{quoted(*table)} ({', '.join(key.columns)})",
            f"{count:,} values of {quoted(*table)} ({', '.join(key.columns)}) differ in case from what {name} refers "
            f"to in {quoted(*key.target)}; citext takes them for the same, and text, which it becomes, does not.",
            f"UPDATE {at.snapshot.rows_of(key)} r SET {', '.join(f'{own} = t.{there}' for own, there in pairs)}\n"
            f"FROM {quoted(*key.target)} t WHERE {' AND '.join(f't.{there} = r.{own}' for own, there in pairs)}\n"
            f"AND ({' OR '.join(f't.{there}::text <> r.{own}::text' for own, there in pairs)});",
        )


def unvalidated_foreign_keys(at: Situation) -> Iterator[Finding]:
    """NOT VALID keys, and those already violated, are kept as they are."""
    users = at.layout.users
    for key in at.snapshot.keys_to(users.key) if users else ():
        if not key.validated and key.enforced and not key.inherited:
            count = at.census.orphans.get((key.table, key.name), 0)
            yield Finding(
                "foreign-key-not-valid",
                "warn",
                quoted(*key.table),
                f"{key.name} on {quoted(*key.table)} is NOT VALID, and {count:,} rows violate it; it is kept as it is.",
                f"-- once the rows are mended, if you like:\n"
                f"ALTER TABLE {quoted(*key.table)} VALIDATE CONSTRAINT {quoted(key.name)};",
            )
